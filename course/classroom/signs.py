"""What in a student's code a person should look at: it decides nothing."""

import ast

from course.classroom.planning import UNREADABLE

REACHES = {  # what a student's answer has no use for, and what it would be good for
    "ctypes": "it reaches into memory",
    "gc": "it looks for objects that are not its own",
    "inspect": "it looks at the code around it",
    "_getframe": "it looks at the code around it",
    "f_back": "it looks at the code around it",
    "f_locals": "it looks at the code around it",
    "tb_frame": "it looks at the code around it",
    "__subclasses__": "it looks for objects that are not its own",
    "__globals__": "it reaches into other modules",
    "__code__": "it reaches into functions",
    "__builtins__": "it changes what Python's own names mean",
    "builtins": "it changes what Python's own names mean",
    "modules": "it reads or changes sys.modules",
    "_exit": "it ends the process",
    "atexit": "it runs code at the end",
    "patch": "it replaces others' functions",
    "setattr": "it sets attributes by name",
    "socket": "it asks for a network",
    "subprocess": "it starts other programs",
}


def signs(source: str) -> list[str]:
    """What in a student's code a person should look at, each in a few words."""
    try:
        tree = ast.parse(source)
    except UNREADABLE:
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.append(node.attr)
            if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
                found.append(f"={node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            found.append(node.id)
        elif isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module.partition(".")[0], *(alias.name for alias in node.names)]
    modules = {"torch", "nn", "F", "check", "checking", "comparing", "course", "vit", "coatnet"}
    replaced = [n for n in found if n[0] == "=" and n[1:].partition(".")[0] in modules]
    said = [f"{REACHES[name]} ({name})" for name in dict.fromkeys(found) if name in REACHES]
    return [*said, *(f"it replaces {name[1:]}" for name in dict.fromkeys(replaced))]
