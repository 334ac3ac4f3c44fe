# io_uring as fio and qemu use it: every way to read and write, with what was written verified.
cd "$TMP"
try() { fio --name=t --directory="$TMP" --size=4m --rw=randrw --ioengine=io_uring --iodepth=16 --verify=crc32c --verify_fatal=1 --minimal "$@" >log 2>&1; echo "$*: $?"; }
for bs in 512 4k 64k 1m; do try --bs=$bs; done
try --bs=4k --direct=1 --iodepth=64
try --bs=16k --fixedbufs=1 --registerfiles=1
try --bs=4k --nonvectored=1 --iodepth_batch=8
try --bs=16k --force_async=4
try --bs=8k --fsync=16 --thread --numjobs=3 --filename_format='t.$jobnum'
qemu-img create -q -f qcow2 a.qcow2 32M
qemu-io -f qcow2 -i io_uring -t none -c 'write -P 17 0 1M' -c 'write -P 34 5M 64k' -c 'read -P 17 0 1M' -c 'discard 5M 64k' -c 'read -P 0 5M 64k' -c 'flush' a.qcow2 | grep -c bytes
qemu-img bench -i io_uring -w -c 500 -d 16 -t none a.qcow2 | head -1
qemu-img check a.qcow2 | head -1
