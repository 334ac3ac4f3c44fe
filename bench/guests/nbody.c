// Bodies that attract each other: scalar doubles, divisions and square roots.
#include <math.h>
#include <stdio.h>

enum { BODIES = 8, STEPS = 1200000 };
static double p[BODIES][3], v[BODIES][3], m[BODIES];

int main(void) {
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
    printf("%.9f\n", e);
    return 0;
}
