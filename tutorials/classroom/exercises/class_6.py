"""The exercises of class 6: our function, its inputs, and the mistakes that many make."""

from train import mean_error

# -------------------------------------------------- one_se


def one_se(accuracies):
    """accuracies: {length: [accuracy of each seed]}, lengths in any order -> the chosen length.
    Use mean_error(list of accuracies) -> (mean, standard error)."""
    found = {length: mean_error(runs) for length, runs in accuracies.items()}
    best, error = max(found.values())
    return min(length for length, (p, _) in found.items() if p >= best - error)


def one_se_inputs():
    """The best is within the noise, is chosen, and stands beside a short one with a large error."""
    return [
        ({1: [0.5, 0.6], 2: [0.87, 0.89], 4: [0.89, 0.89]},),
        ({1: [0.5, 0.6], 2: [0.82, 0.83], 4: [0.95, 0.96]},),
        ({1: [0.7, 0.72], 4: [0.4, 1.0], 16: [0.9, 0.92]},),
        ({8: [0.9, 0.9, 0.9], 2: [0.88, 0.9, 0.89], 4: [0.5, 0.6, 0.7]},),
    ]


def the_best(accuracies):
    found = {length: mean_error(runs) for length, runs in accuracies.items()}
    return max(found, key=found.get)


def own_error(accuracies):
    found = {length: mean_error(runs) for length, runs in accuracies.items()}
    best, _ = max(found.values())
    return min(length for length, (p, error) in found.items() if p + error >= best)


def first_at_the_bar(accuracies):
    found = {length: mean_error(runs) for length, runs in accuracies.items()}
    best, error = max(found.values())
    return next(length for length, (p, _) in found.items() if p >= best - error)


one_se_mistakes = {
    "that is the best length; choose the smallest one at the bar": the_best,
    "the bar takes the standard error of the best length, not each length's own": own_error,
    "that is the first length at the bar; lengths come in any order, take the smallest":
        first_at_the_bar,
}  # fmt: skip

# -------------------------------------------------- still_seen


def still_seen(W, P, n, q):
    """How many of P virtual tokens the last token of a question of q tokens sees, with n other
    tokens between prompt and question: W keys in its window, itself included, nothing pinned."""
    arrow = P + n + q  # its position, counted from one
    first_key = max(1, arrow - W + 1)  # that it sees
    return max(0, P - first_key + 1)


def still_seen_inputs():
    """All, some and none of the prompt in sight; a short window; no other text."""
    return [
        (64, 16, 0, 20),
        (64, 16, 32, 20),
        (64, 16, 48, 20),
        (64, 16, 28, 20),
        (4, 3, 0, 1),
        (4, 8, 0, 2),
        (7, 5, 3, 2),
    ]


def itself_aside(W, P, n, q):
    return still_seen(W + 1, P, n, q)


def below_zero(W, P, n, q):
    return min(P, W - n - q)


def more_than_there_are(W, P, n, q):
    return max(0, W - n - q)


def question_forgotten(W, P, n, q):
    return still_seen(W, P, n, 1)


still_seen_mistakes = {
    "the window has W keys, and the query itself is one of them": itself_aside,
    "where the prompt is out of sight the answer is 0, not less": below_zero,
    "it cannot see more than the P virtual tokens that there are": more_than_there_are,
    "the tokens of the question are in the window, too": question_forgotten,
}

# -------------------------------------------------- reaches


def reaches(L, W, P, j, t):
    """L layers, window W, nothing pinned: True where virtual token j of P can change the logits at
    text token t, else False. Both are counted from one."""
    distance = P + t - j  # text token t stands behind all P virtual tokens
    return distance <= L * (W - 1)


def reaches_inputs():
    """Small models, each virtual token with each text token."""
    inputs = []
    for L, W, P in ((1, 3, 2), (2, 3, 4), (3, 4, 1), (2, 1, 3)):
        for j in range(1, P + 1):
            inputs += [(L, W, P, j, t) for t in range(1, 13)]
    return inputs


def window_without_itself(L, W, P, j, t):
    return P + t - j <= L * W


def one_layer(L, W, P, j, t):
    return P + t - j <= W - 1


reaches_mistakes = {
    "a window of W keys reaches W - 1 positions back: it counts the query": window_without_itself,
    "a message goes on in the next layer: it has L layers": one_layer,
}
