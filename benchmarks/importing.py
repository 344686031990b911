"""CPU time of an import in a process of its own: ``python benchmarks/importing.py MODULE``."""

import importlib
import json
import sys
import time

whole, own = time.process_time(), time.thread_time()
importlib.import_module(sys.argv[1])
own, whole = time.thread_time() - own, time.process_time() - whole
print(json.dumps({"own_us": own * 1e6, "all_us": whole * 1e6}))
