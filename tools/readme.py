#!/usr/bin/env python3
"""Make README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py` writes, `--check` only compares.

The notebook's stored outputs are used, nothing is run. Pictures go to examples/readme-N.png; links, which in the
notebook are relative to nbs/, become relative to the root. Code cells follow nbdev's directives: `#| hide` leaves the
cell out, `#| echo: false` its source, `#| output: false` its outputs; `#| fig-alt: ...` describes its picture.
"""
import base64
import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "nbs/index.ipynb"
PICTURES = "examples/readme-{}.png"
HEADER = f"<!-- Made from {NOTEBOOK} by tools/readme.py: edit the notebook, not this file. -->\n"


def text(value: str | list) -> str:
    "Notebook files store text as one string or as a list of lines."
    return value if isinstance(value, str) else "".join(value)


def from_root(markdown: str) -> str:
    "Links and pictures relative to nbs/ become relative to the repository's root."
    def fix(match):
        opening, address = match.groups()
        return opening + posixpath.normpath(posixpath.join("nbs", address))
    return re.sub(r"(\]\()(?!\w+:|#|/)([^)\s]+)", fix, markdown)


def directives(source: str) -> tuple[dict, str]:
    "Split a code cell into its `#| key: value` lines and the code."
    pattern = r"#\|\s*([\w-]+):?\s*(.*)"
    lines = source.split("\n")
    found = dict(re.match(pattern, line).groups() for line in lines if re.match(pattern, line))
    return found, "\n".join(line for line in lines if not re.match(pattern, line)).strip("\n")


def show(output: dict, alt: str, pictures: list) -> str:
    "One output as Markdown; pictures are collected. What only a browser can show (sound, HTML) is left to the site."
    data = output.get("data", {})
    if output["output_type"] == "stream": return f"```\n{text(output['text']).rstrip()}\n```"
    if "image/png" in data:
        pictures.append(base64.b64decode(text(data["image/png"])))
        return f"![{alt}]({PICTURES.format(len(pictures))})"
    if "text/markdown" in data: return from_root(text(data["text/markdown"]).strip())
    if "text/html" in data or "text/plain" not in data: return ""
    return f"```\n{text(data['text/plain']).rstrip()}\n```"


def readme(notebook: dict) -> tuple[str, list]:
    "The README's text and its pictures as PNG bytes."
    blocks, pictures = [], []
    for cell in notebook["cells"]:
        source = text(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown": blocks.append(from_root(source))
        if cell["cell_type"] != "code": continue
        options, code = directives(source)
        if "hide" in options or options.get("include") == "false": continue
        if code and options.get("echo") != "false": blocks.append(f"```python\n{code}\n```")
        if options.get("output") != "false":
            blocks += [show(output, options.get("fig-alt", ""), pictures) for output in cell["outputs"]]
    return HEADER + "\n" + "\n\n".join(block for block in blocks if block) + "\n", pictures


def main() -> int:
    content, pictures = readme(json.loads((ROOT/NOTEBOOK).read_text(encoding="utf-8")))
    wanted = {"README.md": content.encode("utf-8")}
    wanted |= {PICTURES.format(number): picture for number, picture in enumerate(pictures, 1)}
    stale = {str(path.relative_to(ROOT)) for path in ROOT.glob(PICTURES.format("*"))} - set(wanted)
    differing = sorted(stale | {name for name, content in wanted.items()
                                if not (ROOT/name).exists() or (ROOT/name).read_bytes() != content})
    links = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", content)
    dead = sorted({link for link in links if not (ROOT/link).exists()} - set(wanted))
    if dead: print(f"{NOTEBOOK} links to what is not there: {', '.join(dead)}")
    if "--check" in sys.argv[1:]:
        if differing: print(f"out of step with {NOTEBOOK}: {', '.join(differing)}; run: python tools/readme.py")
        return 1 if differing or dead else 0
    for name in differing:
        if name in stale: (ROOT/name).unlink()
        else: (ROOT/name).write_bytes(wanted[name])
        print(f"{'removed' if name in stale else 'wrote'} {name}")
    return 0


if __name__ == "__main__": sys.exit(main())
