"""The exercises of class 8: our function, its inputs, and the mistakes that many make."""

import torch
import torch.nn.functional as F

from model import GPT, GPTConfig


def choice_nats(logits, tokens, right):
    """Logits (n, V) of n texts, the first tokens of K answers (K,), and for each text which of the
    K is right (n,), counted from 0 -> mean nats of the right one among the K, a scalar."""
    return F.cross_entropy(logits[:, tokens], right)  # ()


def choice_nats_inputs():
    gen = torch.Generator().manual_seed(0)
    two = (torch.randn(4, 9, generator=gen), torch.tensor([5, 2]), torch.tensor([0, 1, 1, 0]))
    three = (torch.randn(2, 7, generator=gen), torch.tensor([6, 1, 3]), torch.tensor([2, 0]))
    return [two, three]


def over_the_vocabulary(logits, tokens, right):
    return F.cross_entropy(logits, tokens[right])


def sum_over_texts(logits, tokens, right):
    return F.cross_entropy(logits[:, tokens], right, reduction="sum")


choice_nats_mistakes = {
    "your softmax is over all V tokens: take the columns of the answers first": over_the_vocabulary,
    "take the mean over the texts, not the sum": sum_over_texts,
}


def likeliest(model, past, question, answers):
    """The index of the likeliest of `answers` (lists of ids) behind `question` (a list of ids).
    `past` (one row, or None) comes before both."""
    total = []
    for answer in answers:
        logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
        chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
        total.append(chances.gather(1, torch.tensor(answer)[:, None]).sum())  # ()
    return int(torch.stack(total).argmax())


def likeliest_inputs():
    model = decided_model()
    _, past = model(torch.tensor([[4, 7, 1]]))
    answers = [[5, 2, 9], [3, 8], [6, 1, 1, 4], [5, 9], [0, 7, 2]]
    questions = [[n, 1, 3 * n % 11] for n in range(11)]
    inputs = [(model, None, question, answers) for question in questions]
    return inputs + [(model, past, question, answers) for question in questions]


def decided_model():
    """A small base, the same each time, which thinks some tokens far likelier than others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT(GPTConfig(11, 32, 2, 4, 32, 2, tie_embeddings=False)).requires_grad_(False)
    for weight in model.parameters():
        weight.mul_(8)
    return model


def chances_of(model, past, question, answer):
    """The log-probability of each token of the answer, (n,)."""
    logits, _ = model(torch.tensor([question + answer]), past)  # (1, T, V)
    chances = logits[0, len(question) - 1 : -1].log_softmax(1)  # (n, V)
    return chances.gather(1, torch.tensor(answer)[:, None])[:, 0]  # (n,)


def mean_of_tokens(model, past, question, answers):
    means = [chances_of(model, past, question, answer).mean() for answer in answers]
    return int(torch.stack(means).argmax())


def first_token_alone(model, past, question, answers):
    firsts = [chances_of(model, past, question, answer)[0] for answer in answers]
    return int(torch.stack(firsts).argmax())


def without_past(model, past, question, answers):
    return likeliest(model, None, question, answers)


likeliest_mistakes = {
    "you divide by the length: a product of probabilities is a sum of logarithms": mean_of_tokens,
    "an answer is all of its tokens, not the first alone": first_token_alone,
    "the past is missing": without_past,
}


def distil_loss(teacher, student):
    """Logits (n, V) of the teacher and the student -> mean divergence over n in nats, a scalar."""
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)  # (n, V) each
    return (p.exp() * (p - q)).sum(-1).mean()  # ()


def distil_loss_inputs():
    gen = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, n, V, generator=gen) for n, V in ((1, 4), (5, 7), (3, 50))]
    return [(teacher, student) for teacher, student in pairs]


def the_other_way(teacher, student):
    return distil_loss(student, teacher)


def mean_over_vocabulary(teacher, student):
    return distil_loss(teacher, student) / teacher.shape[-1]


def of_teacher_alone(teacher, student):
    return F.cross_entropy(student, teacher.softmax(-1))


distil_loss_mistakes = {
    "teacher and student have changed places: the teacher's p is the weight": the_other_way,
    "sum over the vocabulary; the mean is over the positions only": mean_over_vocabulary,
    "this is minus p log q: take it from p log p, so that equal logits give 0": of_teacher_alone,
}


def peft_prefix(keys, values):
    """Keys and values (L, Hkv, P, D) -> (P, 2 L Hkv D)."""
    both = torch.stack((keys, values))  # (2, L, Hkv, P, D)
    return both.permute(3, 1, 0, 2, 4).flatten(1)  # (P, 2 L Hkv D)


def peft_prefix_inputs():
    shapes = [(3, 2, 4, 5), (2, 1, 1, 6)]
    return [tuple(torch.arange(2 * L * H * P * D).float().view(2, L, H, P, D))
            for L, H, P, D in shapes]  # fmt: skip


def all_keys_first(keys, values):
    both = torch.stack((keys, values))  # (2, L, Hkv, P, D)
    return both.permute(3, 0, 1, 2, 4).flatten(1)  # (P, 2 L Hkv D)


def heads_before_keys(keys, values):
    both = torch.stack((keys, values))  # (2, L, Hkv, P, D)
    return both.permute(3, 1, 2, 0, 4).flatten(1)  # (P, 2 L Hkv D)


peft_prefix_mistakes = {
    "layers come first: in each of them the keys, then the values": all_keys_first,
    "in a layer come the keys of all heads, then the values of all heads": heads_before_keys,
}
