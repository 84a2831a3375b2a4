"""One module a lesson, one function an exercise."""
