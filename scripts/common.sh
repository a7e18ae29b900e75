# shellcheck shell=bash
# What the scripts share. Source it: it moves to the project's root and stops at the first error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One line of progress, told apart from the output of the tools.
say() { printf '==> %s\n' "$*" >&2; }

# Says why and ends.
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Seconds as a person says them.
took() { local s=$1; if ((s < 60)); then echo "${s} s"; else echo "$((s / 60)) min $((s % 60)) s"; fi; }
