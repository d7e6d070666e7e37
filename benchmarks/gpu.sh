#!/bin/sh
# Fills the GPU rows, on a machine with one, CIFAR-10 in the cache and nothing else running:
#     sh benchmarks/gpu.sh PATH_OF_PEERS
# where PATH_OF_PEERS holds the peers' published scripts: airbench94_muon.py, cifar10_speedrun.py (hiverge).
# Not run yet: no GPU was at hand when it was written.
set -eu
peers=$1
cd "$(dirname "$0")/.."

sprintnet benchmark sprint94
sprintnet benchmark davidnet
sprintnet study sprint94 --seeds 100 --name gpu-sprint94 --resume
sprintnet study davidnet --seeds 5 --name gpu-davidnet --resume
python benchmarks/record.py sprint94-gpu runs/study/gpu-sprint94/seed-*
python benchmarks/record.py davidnet-24-epochs-gpu runs/study/gpu-davidnet/seed-*
for script in airbench94_muon cifar10_speedrun; do
    python benchmarks/side_by_side.py "$peers/$script.py" sprint94 --rounds 10
done
