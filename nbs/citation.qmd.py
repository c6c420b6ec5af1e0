"""
---
title: Citation
description: How to cite instsep, and on whose work it stands
---
"""
from runpy import run_path
print(run_path("tools/document.py")["citation"]())
