#!/usr/bin/env python3
"""Check what is promised of GitHub's workflows and forms: `tools/workflows.py [--self-test]`.

Nothing is published before the tests of that commit have passed, the package by trusted publishing and the site never
half; tests run on each Python that is supported, on Linux and macOS. Exit code 1 if a file is no YAML or a promise is
broken. The self-test breaks each promise once and sees that it is found.
"""
import copy
import sys
from pathlib import Path

import yaml

GITHUB = Path(__file__).resolve().parent.parent/".github"
PYTHONS = {"3.10", "3.11", "3.12", "3.13"}


def read() -> dict:
    "All YAML files below `.github`, by name; YAML 1.1 reads the key `on` as true."
    found = {path.relative_to(GITHUB).as_posix(): yaml.safe_load(path.read_text(encoding="utf-8"))
             for path in sorted(GITHUB.rglob("*.y*ml"))}
    return {name: {"on" if key is True else key: value for key, value in file.items()} for name, file in found.items()}


def needed(jobs: dict, name: str) -> set:
    "All jobs that a job waits for."
    needs = jobs[name].get("needs") or []
    needs = [needs] if isinstance(needs, str) else needs
    return set(needs).union(*(needed(jobs, one) for one in needs))


def using(jobs: dict, action: str) -> list:
    "Jobs that use an action."
    return [name for name, job in jobs.items()
            if any(action in str(step.get("uses")) for step in job.get("steps", []))]


def promises(files: dict):
    "(promise, is it kept?) of each."
    release, docs, test = (files[f"workflows/{name}.yaml"] for name in ("release", "docs", "test"))
    jobs, [publish] = release["jobs"], using(release["jobs"], "gh-action-pypi-publish")
    tests = {name for name, job in jobs.items() if job.get("uses") == "./.github/workflows/test.yaml"}
    yield "a release is made by a tag", list(release["on"]) == ["push"] and list(release["on"]["push"]) == ["tags"]
    yield "a release waits for all tests", (bool(tests) and tests <= needed(jobs, publish)
                                            and "workflow_call" in test["on"])
    yield "a release needs no password", jobs[publish]["permissions"] == {"id-token": "write"}
    jobs, [deploy] = docs["jobs"], using(docs["jobs"], "deploy-pages")
    [build] = using(jobs, "upload-pages-artifact")
    yield "the site follows the tests, and nothing else", (
        list(docs["on"]) == ["workflow_run"] and docs["on"]["workflow_run"]["workflows"] == [test["name"]]
        and "conclusion == 'success'" in jobs[build].get("if", "") and build in needed(jobs, deploy))
    yield "the site is never left half", docs["concurrency"].get("cancel-in-progress") is False
    matrix = test["jobs"]["light"]["strategy"]["matrix"]
    yield "each Python, on Linux and macOS", (set(matrix["python"]) == PYTHONS
                                              and {one.split("-")[0] for one in matrix["os"]} == {"ubuntu", "macos"})
    yield "all of .ci/run is run", any(".ci/run" in str(step.get("run")) for job in test["jobs"].values()
                                       for step in job.get("steps", []))
    yield "actions are kept up to date", any(update["package-ecosystem"] == "github-actions"
                                             for update in files["dependabot.yml"]["updates"])
    forms = [form for name, form in files.items() if name.startswith("ISSUE_TEMPLATE/") and "config" not in name]
    yield "issues have a form", bool(forms) and all({"name", "description", "body"} <= form.keys() for form in forms)
    yield "pull requests have a form", (GITHUB/"pull_request_template.md").is_file()
    citation = yaml.safe_load((GITHUB.parent/"CITATION.cff").read_text(encoding="utf-8"))
    settings = (GITHUB.parent/"settings.ini").read_text(encoding="utf-8").splitlines()
    yield "the citation has the version that is released", f"version = {citation['version']}" in settings


def broken(files: dict) -> list: return [promise for promise, kept in promises(files) if not kept]


def self_test(files: dict) -> None:
    "Each promise broken once."
    faults = {
        "a release is made by a tag": lambda f: f["release"]["on"].update(workflow_dispatch=None),
        "a release waits for all tests": lambda f: f["release"]["jobs"]["build"].pop("needs"),
        "a release needs no password": lambda f: f["release"]["jobs"]["publish"].update(permissions={}),
        "the site follows the tests, and nothing else": lambda f: f["docs"]["on"].update(workflow_dispatch=None),
        "the site is never left half": lambda f: f["docs"]["concurrency"].update({"cancel-in-progress": True}),
        "each Python, on Linux and macOS": lambda f: f["test"]["jobs"]["light"]["strategy"]["matrix"]["python"].pop(),
        "all of .ci/run is run": lambda f: f["test"]["jobs"].pop("ci"),
    }
    for promise, change in faults.items():
        changed = copy.deepcopy(files)
        change({name: changed[f"workflows/{name}.yaml"] for name in ("release", "docs", "test")})
        assert broken(changed) == [promise], f"{promise}: found {broken(changed) or 'nothing'}"
    print(f"each of {len(faults)} broken promises is found")


def main(arguments: list) -> int:
    files = read()
    if "--self-test" in arguments: return self_test(files) or 0
    for promise in broken(files): print(f"not so: {promise}")
    print(f"{len(files)} files, {len(broken(files))} broken promises")
    return 1 if broken(files) else 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
