"""Traces as text, where threads or processes decide about the order; trees that no log was read for."""

from types import SimpleNamespace

from burr_otel.history.read import RunTree


def run_tree(project, app_id, place, partition_key=None, forked_from=None, spawned_by=None, **more):
    """The tree of a run of which nothing is stored."""
    run = SimpleNamespace(
        project=project,
        app_id=app_id,
        place=place,
        partition_key=partition_key,
        parent_pointer=forked_from,
        spawning_parent_pointer=spawned_by,
    )
    return RunTree(run, **more)


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
