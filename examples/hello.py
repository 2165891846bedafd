# Python: the function `main` is the script. Its parameters are its arguments, its imports are resolved at deploy.
from datetime import timedelta

import humanize  # a package from PyPI


def main(name: str = "world", seconds: int = 93_784):
    print(f"greeting {name}")
    return {"greeting": f"Hello, {name}!", "in_words": humanize.precisedelta(timedelta(seconds=seconds))}
