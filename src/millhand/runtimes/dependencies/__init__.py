"""What a script needs besides itself: other scripts, packages of its language, and the places where they are installed."""

from millhand.runtimes.dependencies.imports import imported_scripts

__all__ = ["imported_scripts"]
