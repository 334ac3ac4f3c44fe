# stress-ng's stressors with verification, one after the other; only what passed and failed is compared.
cd "$TMP"
for s in cpu vm fork futex signal sigsegv mmap pipe userfaultfd; do
  case $s in vm) extra="--vm-bytes 16m";; mmap) extra="--mmap-bytes 16m";; cpu) extra="--cpu-ops 40";; *) extra=;; esac
  stress-ng --$s 2 --timeout "${STRESS_SECONDS:-2}" --verify --temp-path "$TMP" $extra >log 2>&1
  echo "$s $?"
done
