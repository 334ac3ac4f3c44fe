# Those stressors of stress-ng that $@ names, with verification, one after the other. What it reports of each is compared: what was run, passed, failed, skipped, warned
# of, and whether anything was done; not how much, how fast, and by which process.
cd "$TMP"
for s; do
  case $s in vm) extra="--vm-bytes 16m";; mmap) extra="--mmap-bytes 16m";; cpu) extra="--cpu-ops 40";; *) extra=;; esac
  stress-ng --$s 2 --timeout "${STRESS_SECONDS:-2}" --verify --metrics-brief --temp-path "$TMP" $extra >log 2>&1
  echo "$s $?"
  sed -E 's/\[[0-9]+\] ?//g; /bogo ops|\(secs\)|miscellaneous|nanosecs/d; s/^(stress-ng: metrc: *[a-z-]+ +)([0-9]+) .*/\1\2/
    s/(metrc: *[a-z-]+ +)0$/\1nothing/; s/[0-9]+(\.[0-9]+)?/N/g; s/ +/ /g' log | sort -u
done
