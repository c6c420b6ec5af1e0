"""
---
title: Changelog
description: What is new, by version
---
"""
from runpy import run_path
print(run_path("tools/document.py")["page"]("CHANGELOG.md"))
