from benchmarks.kernels.training import measure
import json, sys, time

t = time.time()
r = measure("--quick" in sys.argv)
print(time.time() - t)
for q in r["tables"]:
    print(q)
for q in r["records"]:
    print(
        q["group"],
        q["columns"],
        q["name"],
        round(q["ratio"], 3),
        round(q["lowest"], 3),
        round(q["highest"], 3),
        q["rounds"],
        round(q["values_per_second"] / 1e9, 2),
        q.get("form", q.get("dtype")),
    )
print(r["missing"])
