// links: dynamic static
// Floating point: SSE2 scalar and packed, conversions, rounding, NaNs, long double on the x87.
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t raw(double d) { uint64_t u; memcpy(&u, &d, 8); return u; }
static uint32_t rawf(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static volatile double zero = 0, one = 1, huge = 1e300;

int main(void) {
    double a = 0, b = 1;
    for (int i = 1; i < 5000; i++) { a += sin(i) * sqrt(i) / (b + 0.5); b = fmod(b * 1.7 + a, 13.0) + 1; }
    printf("doubles %016lx %016lx %.12g\n", raw(a), raw(b), a);
    float f = 0;
    for (int i = 1; i < 5000; i++) f = f * 0.75f + (float)i / (1.5f + f);
    printf("floats %08x\n", rawf(f));
    double edge[] = {0.0, -0.0, 1.5, -1.5, 2.5, 1e10, -1e10, 1e19, NAN, INFINITY, -INFINITY, 0.1, DBL_MIN / 3, DBL_MAX};
    for (unsigned i = 0; i < sizeof edge / sizeof *edge; i++) {
        volatile double x = edge[i];
        printf("%a: %d %d %d %d", x, x < one, x == x, x > zero, x >= -one);
        if (fabs(x) < 9e18) printf(" %ld %d", (long)x, fabs(x) < 2e9 ? (int)x : 0);
        printf(" %08x %a %a %a\n", rawf((float)x), floor(x), rint(x), trunc(x));
    }
    printf("nan %d %d inf %d\n", isnan(zero / zero), isnan(sqrt(-one)), isinf(huge * huge));
    int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        volatile double x = 1.0, y = 3.0;
        volatile float g = 1.0f, h = 3.0f;
        volatile long double l = 1.0L, n = 3.0L;
        printf("mode %d %016lx %08x %ld %.20Lg\n", m, raw(x / y), rawf(g / h), lrint(-2.5), l / n);
    }
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
    volatile double q = one / 3; q = one / zero; (void)q;
    printf("flags %d %d %d\n", !!fetestexcept(FE_DIVBYZERO), !!fetestexcept(FE_INEXACT), !!fetestexcept(FE_INVALID));
    long double pi = 0, sign = 1;
    for (int i = 0; i < 1000; i++, sign = -sign) pi += sign * 4 / (2 * i + 1);
    printf("x87 %.18Lg %.18Lg %.18Lg\n", pi, sinl(1.0L), powl(2.0L, 0.5L));
    printf("x87 int %lld %d\n", (long long)(pi * 1e15L), (int)pi);
    printf("%.17g %.17g %.17g %.17g\n", exp(1), log(10), pow(2, 0.5), atan2(1, -1));
    printf("%.9g %.3e %g %s\n", strtod("3.14159265358979", NULL), 12345.678, 1e-320, "end");
    double v[64], w[64], sum = 0;
    for (int i = 0; i < 64; i++) { v[i] = i * 0.25; w[i] = 64 - i; }
    for (int k = 0; k < 50; k++) for (int i = 0; i < 64; i++) v[i] = v[i] * 0.99 + w[i] * w[(i + k) & 63];
    for (int i = 0; i < 64; i++) sum += v[i];
    printf("packed %.15g\n", sum);
    printf("unsigned %lu %.1f %.1f\n", (unsigned long)1.2e19, (double)12345678901234567890ul, (double)(float)4000000000u);
    return 0;
}
