"""Traces as text, where threads or processes decide about the order."""


def in_name_order(tree):
    """The tree with siblings sorted: which of two threads comes first is not ours to say."""

    def blocks(lines, depth):
        found = []
        for line in lines:
            if line[depth] != " ":
                found.append([line])
            else:
                found[-1].append(line)
        return sorted([head, *blocks(rest, depth + 2)] for head, *rest in found)

    def flat(block):
        head, *rest = block
        return [head, *(line for each in rest for line in flat(each))]

    sorted_lines = [line for each in blocks(tree.strip("\n").split("\n"), 0) for line in flat(each)]
    return "\n" + "\n".join(sorted_lines) + "\n"
