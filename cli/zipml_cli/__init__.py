"""The command line of zipml-ooc: it parses, calls the library and shows what came of it."""
