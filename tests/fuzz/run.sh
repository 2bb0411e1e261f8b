#!/usr/bin/env bash
# Fuzzes every decoder for a while: tests/fuzz/run.sh [SECONDS_PER_TARGET [TARGET...]]
#
# Needs a stable toolchain and a C++ compiler. What was found stays in crashes/, what was learnt in corpus/; both are
# local. To look at a finding: tests/fuzz/target/*/release/TARGET tests/fuzz/crashes/FILE
set -euo pipefail

cd "$(dirname "$0")"
seconds="${1:-60}"
shift || true

if ! command -v "${CXX:-c++}" >/dev/null; then
    echo "skipped: fuzzing needs a C++ compiler to build libFuzzer"
    exit 0
fi

# The versions of dependencies under test are the ones that ship.
[ Cargo.lock -nt ../../Cargo.lock ] || cp ../../Cargo.lock Cargo.lock

# What cargo-fuzz passes too, without its nightly part, the sanitizers. --target keeps it away from build scripts.
host="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
export CARGO_TARGET_DIR="$PWD/target"
cargo build --release --quiet --target "$host" --bins
binaries="$CARGO_TARGET_DIR/$host/release"

mkdir -p crashes
# Targets that need files use memory for them where there is some.
[ -d /dev/shm ] && export TMPDIR=/dev/shm
"$binaries/seeds"

if [ $# -gt 0 ]; then
    targets=("$@")
else
    targets=()
    for source in targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
fi

# Without the sanitizers' allocator a huge allocation is only noticed if the system refuses it.
ulimit -v $((4 * 1024 * 1024))
failed=()
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    log="crashes/$target.log"
    if "$binaries/$target" "corpus/$target" -max_total_time="$seconds" -rss_limit_mb=512 -timeout=10 -len_control=0 \
        -max_len=8192 -artifact_prefix="crashes/$target-" -print_final_stats=1 >"$log" 2>&1; then
        seeds="$(sed -n 's/.*INITED cov: \([0-9]*\).*/\1/p' "$log" | tail -1)"
        found="$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)"
        runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        memory="$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")"
        echo "fuzz $target: ok, $runs runs, coverage $seeds -> $found, $memory MiB"
    else
        failed+=("$target")
        echo "fuzz $target: FAILED, see tests/fuzz/$log"
        tail -n 30 "$log"
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzzing found something in: ${failed[*]}"
    exit 1
fi
