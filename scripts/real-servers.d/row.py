"""Prints a row of the tables of `scripts/real-servers` from the reports of one server.

row.py TABLE FOLDER SERVER VERSION LINE SET
"""

import json
import pathlib
import re
import sys

table, folder, server, version, line, person_sets = sys.argv[1:]
folder = pathlib.Path(folder)

# What each scene of the tiny model is there for, the end of its answer and the files that it makes.
SCENES = {
    "note": ("words and calls", "all is done.", ["note.txt"]),
    "think": ("thoughts", "then wrote it.", ["note.txt"]),
    "two": ("two calls at once", "are written.", ["note.txt", "second.txt"]),
}


def read(name):
    try:
        return json.loads((folder / name).read_text())
    except ValueError:
        log = (folder / name).with_suffix(".log").read_text().strip().splitlines()
        return {"broken": log[-1] if log else "no output, or no end within 300 s"}


def doctor():
    report = read("doctor.json")
    if "broken" in report:
        return f"broke off: {report['broken']}"
    findings = [one for one in report["findings"] if one["area"] == "model"]
    faults = [one for one in findings if one["level"] != "ok"]
    if not faults:
        said = [one["message"] for one in findings if one["check"] == "limits"]
        return f"all is well ({said[0].split(',')[0]})" if said else "all is well"
    return "; ".join(f"{one['level']}: {one['message']} → {one['remedy']}" for one in faults)


def run(scene):
    """Returns whether the task went as scripted, and how it ended."""
    report = read(f"{scene}.json")
    if "broken" in report:
        return False, f"broke off: {report['broken']}"
    _, ending, files = SCENES[scene]
    if report["status"] != "completed":
        error = report["error"] or {"message": "no reason given", "hint": None}
        hint = error["hint"] or "no hint"
        return False, f"{report['status']}: {error['message'].removesuffix('; ' + hint)} → {hint}"
    answer = report["answer"]
    if not answer.endswith(ending) or "think>" in answer:
        return False, f"completed, with the answer {answer!r}"
    missing = [name for name in files if not (folder / scene / name).is_file()]
    return (False, f"completed without {', '.join(missing)}") if missing else (True, "completed")


def cell(text):
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text)
    return text if len(text) <= 600 else text[:599] + "…"


scenes = {scene: run(scene) for scene in SCENES if (folder / f"{scene}.json").exists()}
if table == "right":
    works = [SCENES[scene][0] for scene, (good, _) in scenes.items() if good]
    fails = [f"**{SCENES[scene][0]}**: {end}" for scene, (good, end) in scenes.items() if not good]
    tasks = [f"Tasks: {', '.join(works)}"] if works else []
    cells = [server, version, f"`{line}`", ". ".join([f"`doctor`: {doctor()}", *tasks, *fails])]
    cells.append(person_sets)
else:
    cells = [server, person_sets, f"`{line}`", doctor(), "; ".join(end for _, end in scenes.values())]
print("| " + " | ".join(cell(text) for text in cells) + " |")
