#!/usr/bin/env bash
# What a fresh container needs: the environment, with PyTorch for the CPU, and copies of the lessons.
set -euo pipefail
cd "$(dirname "$0")/.."
make .venv/ready TORCH=cpu
.venv/bin/python -m course.update --only-missing
