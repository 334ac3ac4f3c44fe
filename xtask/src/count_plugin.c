// QEMU TCG plugin: counts the guest instructions that a process executes, in all its threads.
//
//     qemu-aarch64 -plugin libcount.so,out=FILE PROGRAM      appends one line "COUNT" to FILE when the process ends
//
// The sum is per instruction and not per block, so a block that a signal cuts short is counted as far as it ran.
#include <inttypes.h>
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 executed;
static char *file;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    for (size_t i = 0, n = qemu_plugin_tb_n_insns(block); i < n; i++)
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
            qemu_plugin_tb_get_insn(block, i), QEMU_PLUGIN_INLINE_ADD_U64, executed, 1);
}

static void ends(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    FILE *out = fopen(file, "a");
    if (!out) return;
    fprintf(out, "%" PRIu64 "\n", qemu_plugin_u64_sum(executed));
    fclose(out);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4)) return 1;
    file = strdup(argv[0] + 4);
    executed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ends, NULL);
    return 0;
}
