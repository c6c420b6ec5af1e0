"""
---
title: Model cards
description: "The models that come with the package: what each is, learnt from, and cannot do"
---
"""
from runpy import run_path
print(run_path("tools/document.py")["page"]("MODEL_CARD.md"))
