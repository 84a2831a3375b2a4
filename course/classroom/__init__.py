"""What `progress` and `grade` stand on; README.md here says what is prevented and what is not.

intake       a folder, as a class or a platform leaves it -> submissions
planning     a notebook -> the steps to run: what an exercise uses, and its check
session      a place where steps run: what it takes and gives
kernel       a session in a Jupyter kernel, for Windows
warm, jail   a session forked from a process that has imported everything, in a sandbox
container    a session in a container, where the system has no sandbox
engine       steps in a session -> a row for each exercise
honesty      signs of forged passes
results      rows, what they say, and the file that keeps them
tables, pages, nbgrader    what teachers read, and what their platforms do
"""
