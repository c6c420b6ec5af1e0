#!/usr/bin/env python3
"Lists lines of Python over 120 characters, in the package, tools and benchmarks; exit code 1 if there are any."
import subprocess
import sys
from pathlib import Path

LIMIT, ROOT = 120, Path(__file__).parent.parent
names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
faults = [f"{name}:{number}: {len(line)} characters" for name in names if name != "instsep/_modidx.py"
          for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1)
          if len(line) > LIMIT and not line.startswith("__all__")]  # that and the index are written by nbdev
print("\n".join([*faults, f"{len(names)} files, {len(faults)} lines over {LIMIT} characters"]))
sys.exit(1 if faults else 0)
