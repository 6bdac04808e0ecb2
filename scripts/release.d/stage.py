"""The tree that packages are made of, and the tarball of it."""
import gzip
import os
import pathlib
import shutil
import subprocess
import tarfile

FAST, SMALL = 1, 9  # levels of gzip
COMPLETIONS = {"bash": "portcullis.bash", "zsh": "_portcullis", "fish": "portcullis.fish"}


def run(*command, **more):
    """What a command prints; it must succeed."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, **more)
    if ran.returncode != 0:
        raise SystemExit(f"release: {command[0]} failed:\n{ran.stderr.decode(errors='replace')}")
    return ran.stdout


class Tree:
    """A folder with all that is published of a program, as the tarball has it."""

    def __init__(self, folder, repo, binary, when):
        self.root, self.repo, self.when = folder / "tree", repo, when
        self.root.mkdir()
        self.program = self.root / "portcullis"
        run("strip", "--strip-all", "-o", self.program, binary)
        self.program.chmod(0o755)
        # The program itself knows its command line, so it has to run on this machine.
        run(binary, "man", "--to", self.root / "man" / "man1")
        (self.root / "completions").mkdir()
        for shell, name in COMPLETIONS.items():
            self.write(f"completions/{name}", run(binary, "completions", shell))
        for name in ("LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md", "gateway.toml"):
            self.write(name, (repo / name).read_bytes())
        for path in sorted((repo / "deploy" / "systemd").iterdir()):
            self.write(f"systemd/{path.name}", path.read_bytes())

    def write(self, name, content):
        """A file of it, by its path below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def in_order(folder):
    """Everything below a folder, each folder before what is in it, in an order that is always the
    same."""
    return sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())


def settle(folder, when):
    """Gives all below a folder one time, and modes that no umask decides."""
    for path in [*in_order(folder), folder]:
        if not path.is_symlink():
            is_program = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_program else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)


def tarball(tree, out, name, is_fast):
    """The archive of the tree, all of it in one folder."""
    settle(tree.root, tree.when)
    made = out / f"{name}.tar.gz"

    def plain(entry):
        entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, "root", "root"
        entry.mtime = tree.when
        return entry

    level = FAST if is_fast else SMALL
    # Neither the name nor the time of the archive is written into it.
    with open(made, "wb") as raw, \
            gzip.GzipFile("", "wb", level, raw, mtime=tree.when) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tree.root, name, recursive=False, filter=plain)
        for path in in_order(tree.root):
            below = pathlib.PurePosixPath(name) / path.relative_to(tree.root).as_posix()
            archive.add(path, str(below), recursive=False, filter=plain)
    return made


def packed(path, content, when):
    """Writes a file as gzip -9n would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", SMALL, raw, mtime=0) as file:
        file.write(content)
    os.utime(path, (when, when))


def copied(source, path):
    """A copy of a file, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    shutil.copymode(source, path)
    return path
