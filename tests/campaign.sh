#!/usr/bin/env bash
# The long campaign: tests/campaign.sh [HOURS], a week by default
#
# Processes are killed and simulated disks lose power, with blocks being written and merged all the time, and what was acknowledged is
# compared with what is there: round after round with new seeds until the time is up; 0 is one round. Ends at the first failure, and
# says how to repeat it. Two cores are enough, and a disk of a few GiB.
set -euo pipefail

cd "$(dirname "$0")/.."
hours="${1:-168}"
seed="$(date +%s)"
kills=200 worlds=300

cargo build --release --locked --quiet
while true; do
    for campaign in \
        "BELFRY_KILL_SEED=$seed BELFRY_KILL_CYCLES=$kills cargo test --release --locked -q -p belfry-tests --test kill" \
        "BELFRY_STORE_SEED=$seed BELFRY_STORE_WORLDS=$worlds cargo test --release --locked -q -p belfry-store what_was_committed"; do
        echo "campaign: $((SECONDS / 3600)) h: env $campaign"
        # shellcheck disable=SC2086 # words are arguments here
        env $campaign -- --nocapture >target/campaign.log 2>&1 || {
            echo "campaign: FAILED, to be repeated with: env $campaign"
            tail -n 50 target/campaign.log
            exit 1
        }
        grep -E "worlds:|kills?" target/campaign.log | tail -n 3
    done
    [ "$SECONDS" -lt $((hours * 3600)) ] || break
    seed=$((seed + worlds))
done
rm target/campaign.log
echo "campaign: nothing was lost in $((SECONDS / 3600)) h"
