// The bus of a simulated accelerator: one access or one burst a call. `top.cc` is what Yosys makes
// of the gateware; BEAT_BYTES is the width of the stream.

#include "top.cc"

#include <cstdint>
#include <cstring>

namespace {

struct Simulation {
    cxxrtl_design::p_accelerator top;
    std::uint64_t cycles = 0;

    // Lets inputs reach the outputs.
    void settle() {
        top.p_clk.set<bool>(false);
        top.step();
    }

    // The rising edge.
    void edge() {
        top.p_clk.set<bool>(true);
        top.step();
        ++cycles;
    }

    bool flag(const cxxrtl::value<1>& v) const { return v.get<bool>(); }
    bool flag(const cxxrtl::wire<1>& v) const { return v.get<bool>(); }
};

constexpr int PATIENCE = 1000;  // cycles in which a register has to answer

}  // namespace

extern "C" {

void* zipml_open() {
    auto* s = new Simulation;
    s->top.p_rst.set<bool>(true);
    s->settle();
    s->edge();
    s->top.p_rst.set<bool>(false);
    return s;
}

void zipml_close(void* handle) { delete static_cast<Simulation*>(handle); }

std::uint64_t zipml_cycles(void* handle) { return static_cast<Simulation*>(handle)->cycles; }

// The response, or -1 if there was none.
int zipml_write(void* handle, std::uint32_t address, std::uint32_t value) {
    auto& s = *static_cast<Simulation*>(handle);
    auto& t = s.top;
    t.p_s__axil__awaddr.set<std::uint32_t>(address);
    t.p_s__axil__wdata.set<std::uint32_t>(value);
    t.p_s__axil__wstrb.set<std::uint32_t>(15);
    t.p_s__axil__bready.set<bool>(true);
    bool address_waits = true, value_waits = true;
    for (int i = 0; i < PATIENCE; ++i) {
        t.p_s__axil__awvalid.set<bool>(address_waits);
        t.p_s__axil__wvalid.set<bool>(value_waits);
        s.settle();
        const bool answered = s.flag(t.p_s__axil__bvalid);
        const int response = t.p_s__axil__bresp.get<std::uint32_t>();
        if (s.flag(t.p_s__axil__awready)) address_waits = false;
        if (s.flag(t.p_s__axil__wready)) value_waits = false;
        s.edge();
        if (answered) {
            t.p_s__axil__bready.set<bool>(false);
            return response;
        }
    }
    return -1;
}

int zipml_read(void* handle, std::uint32_t address, std::uint32_t* value) {
    auto& s = *static_cast<Simulation*>(handle);
    auto& t = s.top;
    t.p_s__axil__araddr.set<std::uint32_t>(address);
    t.p_s__axil__rready.set<bool>(true);
    bool waits = true;
    for (int i = 0; i < PATIENCE; ++i) {
        t.p_s__axil__arvalid.set<bool>(waits);
        s.settle();
        const bool answered = s.flag(t.p_s__axil__rvalid);
        const int response = t.p_s__axil__rresp.get<std::uint32_t>();
        *value = t.p_s__axil__rdata.get<std::uint32_t>();
        if (s.flag(t.p_s__axil__arready)) waits = false;
        s.edge();
        if (answered) {
            t.p_s__axil__rready.set<bool>(false);
            return response;
        }
    }
    return -1;
}

// Offers beats, `gaps[i]` cycles after the one before if there are gaps; returns how many were
// taken, fewer if one was left standing for `patience` cycles.
std::uint64_t zipml_stream(void* handle, const std::uint8_t* beats, const std::uint8_t* last,
                           const std::uint8_t* gaps, std::uint64_t count, std::uint64_t patience) {
    auto& s = *static_cast<Simulation*>(handle);
    auto& t = s.top;
    std::uint64_t taken = 0;
    for (; taken < count; ++taken) {
        for (int i = gaps ? gaps[taken] : 0; i > 0; --i) {
            t.p_s__axis__tvalid.set<bool>(false);
            s.settle();
            s.edge();
        }
        std::memcpy(t.p_s__axis__tdata.data, beats + taken * BEAT_BYTES, BEAT_BYTES);
        t.p_s__axis__tlast.set<bool>(last[taken] != 0);
        t.p_s__axis__tvalid.set<bool>(true);
        bool ready = false;
        for (std::uint64_t i = 0; i < patience && !ready; ++i) {
            s.settle();
            ready = s.flag(t.p_s__axis__tready);
            s.edge();
        }
        if (!ready) break;
    }
    t.p_s__axis__tvalid.set<bool>(false);
    return taken;
}

}  // extern "C"
