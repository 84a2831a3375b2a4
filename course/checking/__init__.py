"""What a check says, and how a notebook shows it: `NotAttempted`, `CheckFailed`, `exercise`."""

from course.checking.exercises import exercise, yours
from course.checking.explain import students_code
from course.checking.guard import require_settings
from course.checking.outcomes import CheckBroke, CheckFailed, NotAttempted, Shown, wrapped

__all__ = [
    "CheckBroke",
    "CheckFailed",
    "NotAttempted",
    "Shown",
    "exercise",
    "require_settings",
    "students_code",
    "wrapped",
    "yours",
]
