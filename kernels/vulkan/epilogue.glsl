/* What every kernel does with a sum before it is stored: t += bias + addend; out = act(t) * weight. */

float sigmoid(float x) {
    return 1.0 / (1.0 + exp(-x));
}

/* exp of a large argument is infinite, and a device's own tanh may then be NaN. */
float tanh_of(float x) {
    float e = exp(-2.0 * abs(x));
    return x < 0.0 ? (e - 1.0) / (e + 1.0) : x >= 0.0 ? (1.0 - e) / (1.0 + e) : x;
}

float activate(uint act, float alpha, float limit, float g, float u) {
    const float root = 0.7978845608028654; /* sqrt(2 / pi) */
    if (act == FMK_VK_SILU_MUL)
        return g * sigmoid(g) * u;
    if (act == FMK_VK_GELU_TANH_MUL)
        return 0.5 * g * (1.0 + tanh_of(root * (g + 0.044715 * g * g * g))) * u;
    g = g > limit ? limit : g; /* SWIGLU_CLAMP; written so that a NaN stays one */
    u = u > limit ? limit : u < -limit ? -limit : u;
    return g * sigmoid(alpha * g) * (u + 1.0);
}
