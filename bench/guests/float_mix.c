// Floating-point kernels of 1 to 3 times 10^8 instructions each, for counting: `float_mix [KERNEL [ROUNDS]]`
// runs one of them or all.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bodies that attract each other: scalar doubles, divisions and square roots.
static double nbody(void) {
    enum { BODIES = 5, STEPS = 100000 };
    static double p[BODIES][3], v[BODIES][3], m[BODIES];
    for (int i = 0; i < BODIES; i++) {
        m[i] = 1 + i * 0.3;
        for (int k = 0; k < 3; k++) { p[i][k] = (i * 7 + k * 3) % 11 - 5; v[i][k] = (i + k * 5) % 7 * 0.01; }
    }
    for (int s = 0; s < STEPS; s++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], r2 = 0.01;
                for (int k = 0; k < 3; k++) { d[k] = p[i][k] - p[j][k]; r2 += d[k] * d[k]; }
                double f = 1e-4 / (r2 * sqrt(r2));
                for (int k = 0; k < 3; k++) { v[i][k] -= d[k] * m[j] * f; v[j][k] += d[k] * m[i] * f; }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++) p[i][k] += 1e-4 * v[i][k];
    }
    double e = 0;
    for (int i = 0; i < BODIES; i++) for (int k = 0; k < 3; k++) e += m[i] * v[i][k] * v[i][k];
    return e;
}

// Matrix product, two doubles at a time.
__attribute__((optimize("tree-vectorize"))) static double matrix(void) {
    enum { N = 192 };
    static double a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) { a[i][j] = i * 0.5 + j; b[i][j] = i - j * 0.25; }
    for (int round = 0; round < 6; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++) c[i][j] += a[i][k] * b[k][j];
    double trace = 0;
    for (int i = 0; i < N; i++) trace += c[i][i];
    return trace;
}

// Heat on a grid: five neighbours in single precision.
static double stencil(void) {
    enum { N = 256 };
    static float grid[2][N][N];
    for (int i = 0; i < N; i++) grid[0][i][0] = grid[1][i][0] = (float)i;
    for (int s = 0; s < 160; s++)
        for (int i = 1; i < N - 1; i++)
            for (int j = 1; j < N - 1; j++) {
                const float(*g)[N] = grid[s & 1];
                grid[~s & 1][i][j] = 0.2f * (g[i][j] + g[i - 1][j] + g[i + 1][j] + g[i][j - 1] + g[i][j + 1]);
            }
    double sum = 0;
    for (int i = 0; i < N; i++) sum += grid[0][i][i % 32];
    return sum;
}

// Iterations until a point leaves the Mandelbrot set: comparisons of doubles.
static double mandelbrot(void) {
    long sum = 0;
    for (int y = 0; y < 240; y++)
        for (int x = 0; x < 320; x++) {
            double cr = x / 160.0 - 1.5, ci = y / 120.0 - 1.0, r = 0, i = 0;
            int n = 0;
            while (n < 400 && r * r + i * i < 4) { double t = r * r - i * i + cr; i = 2 * r * i + ci; r = t; n++; }
            sum += n;
        }
    return (double)sum;
}

// Infinite matrix a(i, j) = 1 / ((i + j)(i + j + 1) / 2 + i + 1): conversions and divisions.
static double spectral(void) {
    enum { N = 500 };
    static double u[N], v[N];
    for (int i = 0; i < N; i++) u[i] = 1;
    for (int round = 0; round < 24; round++)
        for (int i = 0; i < N; i++) {
            double sum = 0;
            const double *from = round & 1 ? v : u;
            for (int j = 0; j < N; j++) sum += from[j] / ((i + j) * (i + j + 1) / 2 + (round & 1 ? j : i) + 1);
            (round & 1 ? u : v)[i] = sum;
        }
    double uv = 0, vv = 0;
    for (int i = 0; i < N; i++) { uv += u[i] * v[i]; vv += v[i] * v[i]; }
    return sqrt(uv / vv);
}

// The C library's own functions.
static double library(void) {
    double sum = 0;
    for (int i = 0; i < 500000; i++) sum += sin(i * 0.01) * exp(-(double)(i % 100) * 0.05) + pow(i + 1, 0.3);
    return sum;
}

static const struct { const char *name; double (*run)(void); } kernels[] = {
    {"nbody", nbody}, {"matrix", matrix}, {"stencil", stencil},
    {"mandelbrot", mandelbrot}, {"spectral", spectral}, {"library", library},
};

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        for (int round = 0; round < rounds && (argc < 2 || !strcmp(argv[1], kernels[i].name)); round++)
            printf("%s %.12g\n", kernels[i].name, kernels[i].run());
    return 0;
}
