#!/usr/bin/env python3
"""Check the pages of the site, as nbdev hands them to Quarto: `tools/site.py [FOLDER] [--examples] [--self-test]`.

FOLDER (`_proc`) is what nbdev's proc_nbs wrote. Quarto itself is not needed. What is looked for: titles, introductions
that nbdev drops, exported cells that it tears apart, printed text in pieces, figures without alternative text, players
and frames without a name, links and anchors to nowhere, links in other links and as raw Markdown in signatures, options
whose hyphens become a dash, chapters without a next step or with long cells, keys of `_quarto.yml` that Quarto does not
know, pages that no sidebar lists, and public names without an entry, a word in it, or an example. Exit code 1 if
anything is found. `--examples` lists only names without an example. The self-test makes a site with each fault once and
sees that each is found.
"""
import ast
import json
import posixpath
import re
import sys
import tempfile
from collections import Counter
from configparser import ConfigParser
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HIDDEN = {"hide", "export", "exporti", "default_exp"}  # nbdev leaves these cells out
DEFINITIONS = ast.FunctionDef, ast.ClassDef
HOOKS = set("forward training_step validation_step test_step predict_step configure_optimizers optimizer_step setup "
            "teardown train_dataloader val_dataloader state_dict load_state_dict extra_repr "
            "readinto readable seekable writable seek tell".split())  # others call these
COLAB = """#| hide
#@title On Colab: install what the chapter needs, and fetch the results and examples that it reads. Elsewhere: nothing.
if "google.colab" in str(get_ipython()):
    setup = "https://raw.githubusercontent.com/instsep/instsep/main/tools/colab.sh"
    get_ipython().system(f"curl -fsSL {setup} | bash")
    get_ipython().run_line_magic("cd", "instsep/nbs")"""
SHORTEST_ALT = 15  # characters; less describes nothing
LONGEST = 20  # lines of a cell that a reader of a chapter sees
KEYS = {  # what Quarto 1.4 to 1.8 knows, as far as a site like this needs it
    "": "project format website metadata-files lang execute brand",
    "project": "type resources output-dir render pre-render post-render preview",
    "website": "title description favicon image image-alt site-url site-path repo-url repo-subdir repo-branch "
               "repo-actions issue-url navbar sidebar page-footer page-navigation back-to-top-navigation bread-crumbs "
               "search reader-mode twitter-card open-graph margin-header body-header body-footer announcement",
    "navbar": "title logo logo-alt logo-href background foreground search pinned collapse left right tools",
    "sidebar": "id title style background foreground contents search collapse-level pinned tools header footer",
    "page-footer": "left center right border background foreground",
    "twitter-card": "title description image image-alt creator site card-style",
    "open-graph": "title description image image-alt locale site-name",
    "item": "href text icon aria-label file rel target menu section contents auto id",
    "html": "theme css toc toc-depth toc-title toc-location number-sections code-copy code-fold code-overflow "
            "include-in-header include-before-body include-after-body link-external-newwindow anchor-sections "
            "highlight-style grid lightbox respect-user-color-scheme fig-responsive page-layout",
}


def text(value) -> str:
    "Notebook files store text as one string or as a list of lines."
    return value if isinstance(value, str) else "".join(value or ())


def directives(source: str) -> dict:
    "A code cell's `#| key: value` lines."
    return {key: value.strip() for key, value in re.findall(r"^#\|\s*([\w-]+):?[ \t]*(.*)$", source, re.M)}


def without_blocks(markdown: str) -> str:
    "Markdown without its blocks of code."
    return re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.M | re.S)


def prose(markdown: str) -> str:
    "Markdown without any code."
    return re.sub(r"`[^`\n]+`", "", without_blocks(markdown))


def identifier(heading: str) -> str:
    "The anchor that Pandoc gives a heading."
    explicit = re.search(r"\{[^}]*#([\w.-]+)[^}]*\}\s*$", heading)
    if explicit: return explicit.group(1)
    heading = re.sub(r"\s*\{[^}]*\}\s*$", "", heading)
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    heading = re.sub(r"[^\w\s.-]", "", heading.lower()).strip()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", heading)) or "section"


class Tags(HTMLParser):
    "The tags of a piece of HTML, each with its attributes; Markdown around them does no harm."
    def __init__(self, markup: str):
        super().__init__()
        self.found = []
        self.feed(markup)
    def handle_starttag(self, tag, attributes): self.found.append((tag, dict(attributes)))


class Page:
    "One processed notebook: its header, and what of its cells a reader sees."
    def __init__(self, path: Path, name: str):
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb": cells = json.loads(content)["cells"]
        else:  # a page of Markdown
            _, header, body = re.split(r"^---$", content, maxsplit=2, flags=re.M)
            cells = [{"cell_type": "raw", "source": header}, {"cell_type": "markdown", "source": body}]
        self.name, header = name, text(cells[0]["source"]) if cells and cells[0]["cell_type"] == "raw" else ""
        self.header = yaml.safe_load(header.strip().strip("-")) or {} if header else {}
        output = self.header.get("output-file", Path(name).stem + ".html")
        self.address = posixpath.join(posixpath.dirname(name), output)
        self.cells = [(cell, text(cell.get("source"))) for cell in cells[1:] if text(cell.get("source")).strip()]
        self.anchors, seen = set(), Counter()
        for markup in self.markups():
            for heading in re.findall(r"^#{1,6}\s+(.+?)\s*$", without_blocks(markup), re.M):
                anchor = identifier(heading)
                self.anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
                seen[anchor] += 1
            self.anchors |= {attributes["id"] for _, attributes in Tags(markup).found if attributes.get("id")}

    def markups(self):
        "Markdown and HTML, written and computed."
        for cell, source in self.cells:
            if cell["cell_type"] == "markdown": yield source
            yield from (markup for _, markup in self.shown(cell, source))

    def shown(self, cell: dict, source: str):
        "(kind, text) of each output that is seen."
        if cell["cell_type"] != "code" or directives(source).keys() & HIDDEN: return
        if {"output": "false", "include": "false"}.items() & directives(source).items(): return
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            kind = next((kind for kind in ("text/html", "text/markdown") if kind in data), None)
            if kind: yield kind, text(data[kind])

    def figures(self):
        "(number of pictures, source) of each cell that shows some."
        for cell, source in self.cells:
            if cell["cell_type"] != "code" or directives(source).get("output") == "false": continue
            kinds = [list(output.get("data", {})) for output in cell.get("outputs", [])]
            count = sum(any(kind.startswith("image/") for kind in some) for some in kinds)
            if count: yield count, source

    def links(self):
        for markup in self.markups():
            plain = prose(markup)
            yield from re.findall(r"\]\(<?([^)\s>]+)", plain)
            for _, attributes in Tags(plain).found:
                yield from (attributes[key] for key in ("href", "src") if attributes.get(key))


def titles(pages, site):
    seen = Counter((posixpath.dirname(page.name), page.header.get("title")) for page in pages)
    for page in pages:
        if not page.header.get("title"): yield page.name, "has no title"
        elif not page.header.get("description"): yield page.name, "has no subtitle (`> ...` under the title)"
        if seen[posixpath.dirname(page.name), page.header.get("title")] > 1:
            yield page.name, f"has the title of another page in its folder: {page.header['title']}"
        number = re.match(r"0*(\d+)_", posixpath.basename(page.name))
        if number and not str(page.header.get("title")).startswith(f"{number.group(1)} "):
            yield page.name, f"is chapter {number.group(1)}, which its title does not say"


def introductions(pages, site):
    "nbdev keeps of the title's cell the title, the subtitle and `- key: value`; other words there are lost."
    for page in site.notebooks(pages):
        cells = json.loads((site.source/page.name).read_text(encoding="utf-8"))["cells"]
        first = text(cells[0]["source"])
        lost = [line for line in first.splitlines() if line.strip() and not re.match(r"# |> |- [\w-]+:", line)]
        if cells[0]["cell_type"] == "markdown" and lost and not first.startswith("---"):
            yield page.name, f"loses its introduction (it belongs in the second cell): {lost[0][:60]}"


def exported(path: Path):
    "(shown, public definitions) of each exported cell of a notebook."
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = text(cell["source"])
        flags = directives(source).keys() & {"export", "exports"} if cell["cell_type"] == "code" else ()
        if not flags or "hide" in directives(source): continue
        yield "exports" in flags, [node for node in ast.parse(source).body
                                   if isinstance(node, DEFINITIONS) and not node.name.startswith("_")]


def torn_cells(pages, site):
    "nbdev puts the first entry before an exported cell that is shown, the others behind it."
    for page in site.notebooks(pages):
        for shown, definitions in exported(site.source/page.name):
            if shown and len(definitions) > 1:
                names = ", ".join(node.name for node in definitions)
                yield page.name, f"tears a cell apart (one definition to a cell): {names}"


def colab(pages, site):
    "The first code of a chapter is the cell that sets it up on Colab, the same in all."
    for page in site.notebooks(pages):
        if not re.match(r"\d+_", page.name): continue
        cells = json.loads((site.source/page.name).read_text(encoding="utf-8"))["cells"]
        if next((text(cell["source"]) for cell in cells if cell["cell_type"] == "code"), "") != COLAB:
            yield page.name, "does not begin with the cell that sets it up on Colab (COLAB in tools/site.py)"


def course(pages, site):
    "A chapter ends in a link to the next one; code in sight is short (what is exported folds itself, media/wide.html)."
    chapters = [page for page in site.notebooks(pages) if re.match(r"\d+_", page.name)]  # in order
    for page, following in zip(chapters, [*chapters[1:], None]):
        written = [source for cell, source in page.cells if cell["cell_type"] == "markdown"]
        link = rf"\]\(({following.name}|{following.address})" if following else r"\]\("
        if not re.search(link, (written or [""])[-1]):
            yield page.name, f"does not end in a link to {following.name if following else 'what to do now'}"
        for cell, source in page.cells:
            flags = directives(source) if cell["cell_type"] == "code" else dict(hide="")
            if flags.keys() & {*HIDDEN, "code-fold"} or flags.get("echo") == "false" or "show_doc(" in source: continue
            lines = [line for line in source.splitlines() if not line.startswith("#|")]
            if len(lines) > LONGEST:
                yield page.name, f"has {len(lines)} lines in sight (fold it, or make it two cells): {lines[0][:50]}"


def stale(pages, site):
    "Cells that are computed anew for the site (`#| exec_doc`) have the same output in the notebook."
    def outputs(cell):
        shown = "".join(text(output.get("data", {}).get("text/markdown")) for output in cell.get("outputs", []))
        return re.sub(r"\[(`[^`]+`)\]\([^)]*\)", r"\1", shown)
    for page in site.notebooks(pages):
        made = {cell.get("id"): cell for cell, _ in page.cells}
        for cell in json.loads((site.source/page.name).read_text(encoding="utf-8"))["cells"]:
            if "exec_doc" not in directives(text(cell["source"])) or cell["id"] not in made: continue
            if outputs(cell) != outputs(made[cell["id"]]):
                yield page.name, f"has a stored output that is not what the cell gives now: cell {cell['id']}"


def public_names(path: Path) -> list:
    "What a notebook exports, methods as `Class.method`; properties, and what torch, Lightning and io call, left out."
    names = []
    for node in (node for _, definitions in exported(path) for node in definitions):
        names.append(node.name)
        for part in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
            if not isinstance(part, ast.FunctionDef) or part.name in HOOKS: continue
            if part.name.startswith(("_", "on_")): continue
            if any(re.search("property|setter", ast.unparse(one)) for one in part.decorator_list): continue
            names.append(f"{node.name}.{part.name}")
    return names


def entries(pages, site):
    for page in site.notebooks(pages):
        for name in public_names(site.source/page.name):
            if identifier(name) not in page.anchors:
                yield page.name, f"has no entry for {name} (a method's is a cell with show_doc({name}))"


def words_of(source: str) -> set:
    "Names that a cell's code uses, methods as `.name`; what it imports or only mentions in a comment does not count."
    try: tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
    except SyntaxError: return set()
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {f".{node.attr}" for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    programs = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
                and "\n" in node.value)  # that another process runs
    return found.union(*(words_of(program) for program in programs))


def documented(path: Path) -> set:
    "Public names whose docstring has an example."
    parts = [(node.name, part) for _, definitions in exported(path) for node in definitions
             for part in (node, *getattr(node, "body", [])) if isinstance(part, DEFINITIONS)]
    return {name if part.name == name else f"{name}.{part.name}" for name, part in parts
            if ">>>" in (ast.get_docstring(part) or "")}


def examples(pages, site):
    "Each public name is used in a cell that a reader of its page sees, or has an example in its docstring."
    for page in site.notebooks(pages):
        used = set().union(*(words_of(source) for cell, source in page.cells if cell["cell_type"] == "code"
                             and "Exported source" not in source and "show_doc(" not in source))
        have = documented(site.source/page.name)
        for name in public_names(site.source/page.name):
            attribute = "." + name.split(".")[1] if "." in name else name
            if attribute not in used and f".{name}" not in used and name not in have:
                yield page.name, f"has no example of {name} (a cell that uses it, one to four lines, beside it)"


def alternative_text(pages, site):
    for page in pages:
        for count, source in page.figures():
            alt = directives(source).get("fig-alt", "")
            alts = [alt] if not alt.startswith("[") else yaml.safe_load(alt)
            line = next(line for line in source.splitlines() if not line.startswith("#|")).strip()[:60]
            if len(alts) < count or min(len(str(one).strip()) for one in alts) < SHORTEST_ALT:
                yield page.name, f"has {count} figure{'s' * (count > 1)} without `#| fig-alt:` at: {line}"
            try: yaml.safe_load("fig-alt: " + alt)
            except yaml.YAMLError: yield page.name, f"has an alternative text that is no YAML (quote it): {alt[:60]}"
        for markup in page.markups():
            for alt, address in re.findall(r"!\[([^]]*)\]\(([^)\s]+)", prose(markup)):
                if len(alt) < SHORTEST_ALT: yield page.name, f"has a picture without alternative text: {address[:60]}"
            for tag, attributes in Tags(markup).found:
                if tag == "img" and not attributes.get("alt"):
                    yield page.name, f"has an <img> without alt: {attributes.get('src', '')[:60]}"


def names_of_players(pages, site):
    for page in pages:
        for markup in page.markups():
            found = Tags(markup).found
            labelled = {attributes.get("for") for tag, attributes in found if tag == "label"}
            for tag, attributes in found:
                if tag not in ("audio", "video", "iframe", "input", "select", "meter"): continue
                if attributes.get("type") == "hidden": continue
                named = attributes.get("aria-label") or attributes.get("title")
                if not named and attributes.get("id", "") not in labelled:
                    yield page.name, f"has <{tag}> without a name (aria-label)"


def links(pages, site):
    by_source, by_address = {page.name: page for page in pages}, {page.address: page for page in pages}
    for page in pages:
        for link in sorted(set(page.links())):
            address, _, anchor = link.partition("#")
            if address.startswith(site.home): target = address.removeprefix(site.home).lstrip("/") or "index.html"
            elif address.startswith(site.repository):
                kind, _, place = address.removeprefix(site.repository).lstrip("/").partition("/")
                place = place.partition("/")[2]
                if kind in ("blob", "tree", "raw") and place and not (site.root/place).exists():
                    yield page.name, f"links to a file that is not in the repository: {place}"
                continue
            elif re.match(r"[a-z]+:|//", link):
                notebook = re.search(r"colab\.research\.google\.com/github/[^/]+/[^/]+/blob/[^/]+/(.+)", address)
                number = re.match(r"\d+_", page.name)
                if notebook and (notebook.group(1) != f"nbs/{page.name}" if number else
                                 not (site.root/notebook.group(1)).exists()):
                    yield page.name, f"has the Colab badge of another notebook: {notebook.group(1)}"
                continue
            elif not address: target = page.name
            else: target = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), address))
            found = by_source.get(target) or by_address.get(target)
            if not found and not (site.folder/target).is_file(): yield page.name, f"links to nowhere: {link}"
            elif anchor and found and anchor not in found.anchors:
                yield page.name, f"links to an anchor that is not there: {link}"


def quarto_keys(pages, site):
    config = yaml.safe_load((site.folder/"_quarto.yml").read_text(encoding="utf-8"))
    listed, inside, files = set(), set(), []

    def unknown(mapping, kind):
        for key in mapping:
            if key not in KEYS[kind].split():
                yield "_quarto.yml", f"has a key that Quarto does not know: {kind or 'top'}: {key}"

    def items(contents):
        for item in [contents] if isinstance(contents, (str, dict)) else contents or []:
            if isinstance(item, dict):
                yield from unknown(item, "item")
                for key in ("contents", "auto", "menu"): yield from items(item.get(key))
                item = item.get("href") or item.get("file") or item.get("section") or "http:"
                if not re.search(r"\.(ipynb|qmd|html|md)(#.*)?$", item): continue
            if re.match(r"\w+:", item): continue
            item, _, anchor = item.lstrip("/").partition("#")
            found = {page.name for page in pages if fnmatch(page.name, item)
                     and item.count("/") == page.name.count("/")}
            if anchor and not any(anchor in page.anchors for page in pages if page.name in found):
                yield "_quarto.yml", f"links to an anchor that is not there: {item}#{anchor}"
            if not found and not (site.folder/item).is_file():
                yield "_quarto.yml", f"lists a page that is not there: {item}"
            inside.update(found)

    yield from unknown(config, "")
    website = config.get("website", {})
    yield from unknown(config.get("project", {}), "project")
    yield from unknown(website, "website")
    yield from unknown((config.get("format") or {}).get("html") or {}, "html")
    for kind in ("navbar", "sidebar", "page-footer", "twitter-card", "open-graph"):
        parts = website.get(kind) or {}
        for part in parts if isinstance(parts, list) else [parts]:
            if not isinstance(part, dict): continue
            yield from unknown(part, kind)
            for key in ("contents", "left", "right", "center", "tools"):
                if isinstance(part.get(key), (list, dict)) or key == "contents": yield from items(part.get(key))
            if kind == "sidebar": listed |= inside
            inside.clear()
            files.append(part.get("image") or part.get("logo"))
    html = (config.get("format") or {}).get("html") or {}
    files += [website.get("favicon"), website.get("image")]
    for key in ("css", "include-in-header", "include-before-body", "include-after-body"):
        given = html.get(key) or []
        files += [one for one in ([given] if isinstance(given, str) else given) if isinstance(one, str)]
    for file in filter(None, files):
        if not re.match(r"\w+:", file) and not (site.folder/file).is_file():
            yield "_quarto.yml", f"names a file that is not there: {file}"
    for page in pages:
        if website.get("sidebar") and page.name not in listed and page.name != "404.md":
            yield page.name, "is in no sidebar"
    footer = json.dumps(website.get("page-footer") or site.version)
    if site.version not in footer: yield "_quarto.yml", f"has a footer that does not say {site.version}, the version"


def signatures(pages, site):
    for page in pages:
        for cell, source in page.cells:
            if not re.search(r"^show_doc", source, re.M): continue
            for _, markup in page.shown(cell, source):
                for line in "".join(re.findall(r"```python\n(.*?)```", markup, re.S)).splitlines():
                    if re.search(r"\]\(http", line):
                        yield page.name, f"has a link as raw Markdown in a signature (plain name!): {line.strip()[:70]}"


def wording(pages, site):
    "What nbdev and Pandoc make of words: a link in a link, an option's two hyphens as a dash, an entry without a word."
    for page in pages:
        for markup in page.markups():
            plain = without_blocks(markup)
            for link in re.findall(r"\[\[[^]]*\]\([^)]*\)\]", plain):
                yield page.name, f"has a link in a link (nbdev links what is in backticks): {link[:60]}"
            for option in re.findall(r"(?<![\w|:-])--[a-z][\w-]*", re.sub(r"`[^`]+`|<[^>]+>", "", plain)):
                yield page.name, f"has an option that becomes a dash (put it in backticks): {option}"
            if "*Call self as a function.*" in plain:
                name = re.search(r"^#+ (.*)", plain, re.M)
                yield page.name, f"has an entry without a word (its docstring is missing): {name and name.group(1)}"


def torn_outputs(pages, site):
    "What a cell prints is one output; several have gaps between them on the page."
    for page in site.notebooks(pages):
        for cell in json.loads((site.source/page.name).read_text(encoding="utf-8"))["cells"]:
            kinds = [(output.get("output_type"), output.get("name")) for output in cell.get("outputs", [])]
            if any(one == other and one[0] == "stream" for one, other in zip(kinds, kinds[1:])):
                yield page.name, f"has printed text in several pieces (make them one): cell {cell.get('id')}"


CHECKS = [titles, introductions, torn_cells, entries, examples, course, stale, colab, alternative_text,
          names_of_players, links, quarto_keys, signatures, wording, torn_outputs]


class Site:
    "Where things lie: the processed pages, the notebooks they came from, the repository, the addresses."
    def __init__(self, folder: Path, source: Path, root: Path):
        self.folder, self.source, self.root = folder, source, root
        config = ConfigParser(delimiters=["="])
        config.read(root/"settings.ini", encoding="utf-8")
        self.home = config["DEFAULT"]["doc_host"] + config["DEFAULT"]["doc_baseurl"]
        self.repository, self.version = config["DEFAULT"]["git_url"], config["DEFAULT"].get("version", "")

    def notebooks(self, pages): return [page for page in pages if (self.source/page.name).suffix == ".ipynb"]

    def faults(self, checks=None) -> list:
        checks = checks or CHECKS
        paths = (path for path in sorted(self.folder.rglob("*")) if path.suffix in (".ipynb", ".qmd", ".md"))
        names = [path.relative_to(self.folder).as_posix() for path in paths if path.name != "README.md"]
        pages = [Page(self.folder/name, name) for name in names]
        return [(check.__name__, *fault) for check in checks for fault in check(pages, self)]


def self_test() -> None:
    "A site with each fault once: each is found, and one without them passes."
    def cell(source, *outputs, kind="code"):
        return {"cell_type": kind, "source": source, "outputs": [{"data": data} for data in outputs]}
    def now(output, number): return cell("#| exec_doc\nf()", {"text/markdown": output}) | {"id": number}
    def words(source): return cell(source, kind="markdown")
    def header(title, address):
        return cell(f"---\ntitle: {title}\ndescription: What it is\noutput-file: {address}\n---\n", kind="raw")
    picture, code = {"image/png": "x"}, "```python\ndef f(\n    x, # as {}\n): ...\n```"
    home = "https://me.github.io/it"
    good = [now("as it is", "1"),
            words(f"Words, `code`, and [a link](02_b.ipynb#the-end), [home]({home}/b.html#the-end)."),
            cell("#| fig-alt: A curve that rises and falls\nplot()", picture),
            cell("play()", {"text/html": '<audio aria-label="a tune"></audio>'}),
            cell("show_doc(f)", {"text/markdown": "### f\n\n" + code.format("`g` takes it")})]
    bad = {"titles": [], "introductions": [], "torn_cells": [], "stale": [now("as it is", "1")],
           "colab": [], "quarto_keys": [], "course": [cell("x\n" * 21), words("The end.")],
           "examples": [cell("import g  # g()"), cell("show_doc(g)", {"text/markdown": "### g"})],
           "entries": [cell("C().run()")],
           "alternative_text": [cell("#| fig-alt: short\nplot()", picture)],
           "names_of_players": [cell("play()", {"text/html": "<audio></audio>"})],
           "links": [words("[x](02_b.ipynb#nothing)"), words("[x](no.html)"), words(f"[x]({home}/no.html)")],
           "wording": [words("[[`f`](b.html)](b.html)"), words("give --this"),
                       cell("show_doc(f)", {"text/markdown": "### f\n\n*Call self as a function.*"})],
           "torn_outputs": [cell("f()") | {"outputs": 2 * [{"output_type": "stream", "name": "stdout", "text": "x"}]}],
           "signatures": [cell("show_doc(f)", {"text/markdown": code.format(f"[`g`]({home}/b.html)")})]}
    for fault in [None, *bad]:
        with tempfile.TemporaryDirectory() as place:
            root, site = Path(place), Path(place)/"_proc"
            for folder in (site, root/"nbs"): folder.mkdir()
            (root/"settings.ini").write_text("[DEFAULT]\ndoc_host = https://me.github.io\ndoc_baseurl = /it\n"
                                             "git_url = https://github.com/me/it\n")
            key = "contnets" if fault == "quarto_keys" else "contents"
            (site/"_quarto.yml").write_text(f"website:\n  sidebar:\n    {key}: ['/0*.ipynb']\n")
            first = "# T\n> What it is" + "\n\nHello." * (fault == "introductions")
            code_cells = [cell("#| exports\ndef f(): pass\n" + "def f(): pass\n" * (fault == "torn_cells"))]
            code_cells += [now("as it was" if fault == "stale" else "as it is", "1")]
            code_cells += [cell("#| export\nclass C:\n    def run(self): pass")] * (fault == "entries")
            code_cells += [cell("#| export\ndef g(): pass")] * (fault == "examples")
            start = [cell(COLAB)] * (fault != "colab")
            following = [words("Next: [b](02_b.ipynb).")] * (fault != "course")
            a = "01_a", "A" if fault == "titles" else "1 A", "a.html", good + bad.get(fault, []) + following, code_cells
            b = "02_b", "2 B", "b.html", [words("## The end\n\nBack to [a](01_a.ipynb).")], []
            for name, title, address, cells, hidden in (a, b):
                (site/f"{name}.ipynb").write_text(json.dumps({"cells": [header(title, address), *cells]}))
                (root/"nbs"/f"{name}.ipynb").write_text(json.dumps(
                    {"cells": [words(first), *start, *hidden, *cells]}))
            found = {kind for kind, *_ in Site(site, root/"nbs", root).faults()}
            assert found == ({fault} if fault else set()), f"{fault}: found {found or 'nothing'}"
    print(f"each of {len(bad)} kinds of fault is found")


def main(arguments: list) -> int:
    if "--self-test" in arguments: return self_test() or 0
    folder = next((Path(one) for one in arguments if not one.startswith("--")), ROOT/"_proc")
    site = Site(folder, ROOT/"nbs", ROOT)
    faults = site.faults([examples] if "--examples" in arguments else None)
    for kind, page, fault in faults: print(f"{page}: {fault}  [{kind}]")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
