"""Documents of the repository's root as pages of the site: nbs/*.qmd.py, which nbdev runs while it makes the pages,
print what these functions return. So a page is always what the document says."""
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
BLOB = "https://github.com/instsep/instsep/blob/main"


def from_site(match: re.Match) -> str:
    "A link relative to the root becomes one relative to nbs/, or, of what is not on the site, to the repository."
    address = match.group(2)
    if re.match(r"nbs/\S+\.ipynb", address): return match.group(1) + address.removeprefix("nbs/")
    return f"{match.group(1)}{BLOB}/{address}"


def page(name: str) -> str:
    "A document without its title, its other headings one level down."
    document = (ROOT/name).read_text(encoding="utf-8").split("\n", 1)
    assert document[0].startswith("# "), f"{name} does not begin with its title"
    body = re.sub(r"(\]\()(?!\w+:|#)([^)\s]+)", from_site, document[1])
    if re.search(r"^# ", body, re.M): body = re.sub(r"^(#+ )", r"#\1", body, flags=re.M)
    return body.strip()


def citation() -> str:
    "What CITATION.cff says, as text and for BibTeX."
    about = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join("{" + (one.get("name") or f"{one['given-names']} {one['family-names']}") + "}"
                           for one in about["authors"])
    fields = {"title": "{" + about["title"] + "}", "author": authors, "version": about["version"],
              "url": about["repository-code"]}
    if "date-released" in about: fields["year"] = str(about["date-released"])[:4]
    lines = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items())
    return f"""{about["message"]} The same is in [CITATION.cff]({BLOB}/CITATION.cff), which GitHub and Zotero read.

```bibtex
@software{{instsep,
{lines}
}}
```

The methods have authors of their own, whom each chapter names where it uses them. Where your work stands on the
transcriber of tokens, cite MT3 ([Gardner et al. 2022](https://arxiv.org/abs/2111.03017)); where on SI-SDR,
[Le Roux et al. 2019](https://arxiv.org/abs/1811.02508). The code is under the {about["license"]} licence; soundfonts,
recordings and pieces have the licences that the [model cards](models.qmd) name."""
