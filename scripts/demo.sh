#!/usr/bin/env bash
# The main job from nothing: corpus, shards, pre-training, fine-tuning, tests, export, reload, features and emotions of
# videos, one table, a page about each of two runs.
# Everything is written below the folder given (default: demo). Called by `make demo`.
set -euo pipefail
out=${1:-demo}
started=$SECONDS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(getconf _NPROCESSORS_ONLN)}

say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - started)); }

say "1/6 a synthetic corpus of talking faces, as mp4 files"
hicmae demo-data "$out/corpus" --size 96 --seconds 2.8 3.4 --seed 0 \
    --speakers 24 --val-speakers 4 --test-speakers 8 --clips-per-speaker 8 \
    --unlabelled-speakers 24 --unlabelled-clips-per-speaker 8 \
    --contact-sheet "$out/figures/corpus.png"

say "2/6 shards"
hicmae shards write "$out/corpus/manifest.csv" "$out/shards/unlabelled" --split unlabelled --shard-mb 1 \
    --format h264 --size 64
hicmae shards info "$out/shards/unlabelled" --sheet "$out/figures/shards.png"

say "3/6 pre-training on clips without labels"
rm -rf "$out/pretrain"
python -m pretrain fit --config configs/pretrain/demo.yaml \
    --data.shards "[$out/shards/unlabelled]" --probe.manifest "$out/corpus/manifest.csv" \
    --trainer.default_root_dir "$out/pretrain"

say "4/6 fine-tuning on a few labelled speakers, tests on unseen speakers"
finetune() {  # name, further arguments
    local name=$1
    shift
    rm -rf "${out:?}/finetune/$name"
    python -m finetune fit --config configs/finetune/demo.yaml \
        --data.manifest "$out/corpus/manifest.csv" \
        --trainer.default_root_dir "$out/finetune/$name" --wandb off "$@"
}
pretrained="$out/pretrain/export"
finetune pretrained_audio_video --model.init "$pretrained"
finetune scratch_audio_video --model.init null --model.preset micro
finetune pretrained_video --model.init "$pretrained" --model.modalities '[video]'
finetune pretrained_audio --model.init "$pretrained" --model.modalities '[audio]'

say "5/6 export, reload, embed, predict"
rm -rf "$out/exported"
hicmae export "$out/finetune/pretrained_audio_video/checkpoints/best.ckpt" "$out/exported"
python - "$out" <<'PYTHON'
import sys, pathlib, hicmae
out = pathlib.Path(sys.argv[1])
model, transform = hicmae.load_recognizer(out / "exported")
clip = sorted((out / "corpus" / "clips").glob("*.mp4"))[0]
probabilities = model(**transform(clip)).logits.softmax(-1)[0]
best = int(probabilities.argmax())
print(f"reloaded: {clip.name} looks and sounds {model.targets.classes[best]} (p = {probabilities[best]:.2f})")
PYTHON
rm -f "$out/embeddings.parquet"  # of another model, which embed would not replace
hicmae embed "$out"/corpus/clips/s0000-*.mp4 --model "$out/exported" -o "$out/embeddings.parquet"
python -m hicmae.continuous.synthetic "$out/long" --speakers 0 --test-speakers 1 --seconds 30 --seed 3
rm -f "$out"/emotions*.csv
hicmae predict "$out"/long/videos/*.mp4 --model "$out/exported" --hop-s 0.5 -o "$out/emotions.csv" \
    --figure "$out/figures/emotions.png"

say "6/6 results"
python -m finetune.report "$out"/finetune/{pretrained_audio_video,scratch_audio_video,pretrained_video,pretrained_audio} \
    --out "$out" --title "HiCMAE demo: SYNTHETIC faces, runs of minutes" \
    --note "Synthetic corpus, micro model, minutes of training: this shows that the pipeline works, nothing about human emotion."
cp "$out/pretrain/figures/reconstruction_0.png" "$out/figures/reconstruction.png"
cp "$out/pretrain/figures/learning_curves.png" "$out/figures/pretraining_curves.png"
cp "$out/pretrain/figures/probes.png" "$out/figures/pretraining_probes.png"
cp "$out/finetune/pretrained_audio_video/figures/confusion_test_best.png" "$out/figures/confusion.png"
for run in "$out/pretrain" "$out/finetune/pretrained_audio_video"; do
    hicmae report "$run"
done
printf '\nFigures: %s\nTable: %s\nEmotions of a video: %s and %s\nPages: %s and %s\nDone in %d s.\n' \
    "$(echo "$out"/figures/*.png)" "$out/results.md" "$out/emotions.csv" "$out/figures/emotions.png" \
    "$out/pretrain/report.html" "$out/finetune/pretrained_audio_video/report.html" $((SECONDS - started))
