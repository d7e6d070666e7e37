#!/bin/sh
# Measures the GPU rows. Needs a GPU, CIFAR-10 in the cache and nothing else running:
#     pip install ".[study]"; sh benchmarks/gpu.sh PATH_OF_PEERS
# where PATH_OF_PEERS holds the peers' published scripts: airbench94_muon.py, airbench95.py, airbench96_faster.py, and hiverge's
# cifar10_speedrun.py. Not run yet: no GPU was available.
set -eu
peers=$1
cd "$(dirname "$0")/.."

study() { # RECIPE SEEDS ROW
    sprintnet study "$1" data.val=0 --seeds "$2" --name "gpu-$1" --resume
    python benchmarks/record.py "$3" "runs/study/gpu-$1"/seed-*
}
beside() { # SCRIPT RECIPE: the first training of each process is not counted
    python benchmarks/side_by_side.py "$peers/$1.py" "$2" --rounds 10 --warm-ups 1
}

# check first what would fail late
python -c "import scipy, torch; assert torch.cuda.is_available(), 'no GPU'"
git rev-parse HEAD
ls "$peers/airbench94_muon.py" "$peers/airbench95.py" "$peers/airbench96_faster.py" "$peers/cifar10_speedrun.py"

for recipe in sprint94 davidnet; do
    sprintnet benchmark "$recipe"
done
study sprint94 100 sprint94-gpu
study sprint95 20 sprint95-gpu
study sprint95-long 20 sprint95-long-gpu
study davidnet 5 davidnet-24-epochs-gpu
beside airbench94_muon sprint94
beside cifar10_speedrun sprint94
beside airbench95 sprint95
beside airbench96_faster sprint95-long
python benchmarks/headline.py
