// Kernels of vector instructions: `vectors KERNEL ROUNDS`. AES-256-GCM and SHA-256 of 8 KiB blocks, as `openssl speed` runs them, by
// libcrypto's code for the processor it finds; a product of matrices of floats with fused operations.
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 8192, N = 192 };
static unsigned char block[BLOCK], out[BLOCK];
static float a[N][N], b[N][N], c[N][N];

static unsigned gcm(int rounds) {
    static const unsigned char key[32] = {1, 2, 3}, iv[12] = {4};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv);
    int len = 0;
    for (int n = 0; n < rounds; n++) EVP_EncryptUpdate(ctx, out, &len, block, BLOCK);
    unsigned char tag[16];
    EVP_EncryptFinal_ex(ctx, out, &len);
    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, sizeof tag, tag);
    return tag[0] | tag[1] << 8 | tag[2] << 16;
}

static unsigned sha256(int rounds) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    for (int n = 0; n < rounds; n++) EVP_DigestUpdate(ctx, block, BLOCK);
    unsigned char digest[32];
    EVP_DigestFinal_ex(ctx, digest, NULL);
    return digest[0] | digest[1] << 8 | digest[2] << 16;
}

static unsigned product(int rounds) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) a[i][j] = i + j * 0.5f, b[i][j] = i - j * 0.25f;
    for (int n = 0; n < rounds; n++) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++) c[i][j] += a[i][k] * b[k][j];
    }
    float trace = 0;
    for (int i = 0; i < N; i++) trace += c[i][i];
    return (unsigned)(int)trace;
}

int main(int argc, char **argv) {
    const char *kernel = argc > 1 ? argv[1] : "none";
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (int i = 0; i < BLOCK; i++) block[i] = i * 7;
    unsigned result = !strcmp(kernel, "aes-256-gcm") ? gcm(rounds) : !strcmp(kernel, "sha256") ? sha256(rounds)
                    : !strcmp(kernel, "product") ? product(rounds) : 0;
    printf("%s %06x\n", kernel, result);
    return 0;
}
