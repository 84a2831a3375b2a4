"""One module a lesson, one function an exercise."""

import coatnet  # noqa: F401 (whose `vit` is the course's, whatever lies beside the notebook)
