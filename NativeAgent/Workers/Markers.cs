namespace FCtrans.Agent.Workers;

/// <summary>Names of files in a worker's directory, each of which says that a step was taken.</summary>
internal static class Markers
{
    /// <summary>The worker does its work; content: its data port.</summary>
    public const string Ready = "ready";

    /// <summary>It could not begin; content: why.</summary>
    public const string Refused = "refused";

    /// <summary>Its work has ended, well or badly, and will not be begun again.</summary>
    public const string Ended = "ended";

    /// <summary>Source: the main host has been told to run the VM, or is about to be. From here on the source never resumes it.</summary>
    public const string Committed = "committed";

    /// <summary>Source: QEMU's migration settings as they were before ours.</summary>
    public const string MigrationSettings = "migration-settings";

    /// <summary>Main: QEMU holds the whole device state and waits, paused, for the word to run.</summary>
    public const string Prepared = "prepared";

    /// <summary>Main: the VM runs here, or is about to.</summary>
    public const string Running = "running";

    /// <summary>Source: its port for what a switch-over left here. The pages themselves are in the file left-pages.</summary>
    public const string LeftPort = "left-port";

    /// <summary>Source: the main host has taken all that was left.</summary>
    public const string LeftTaken = "left-taken";

    /// <summary>Main: pages lie at the source; content: the address and port where it listens.</summary>
    public const string SourceStore = "source-store";

    /// <summary>Main: nothing is at the source any more, which may not know that yet; content as of <see cref="SourceStore"/>.</summary>
    public const string SourceEmptied = "source-emptied";

    /// <summary>Main: the process id of the destination's QEMU.</summary>
    public const string QemuPid = "qemu.pid";

    /// <summary>Main: the name of the domain that libvirt runs for it, and in a second line when its QEMU started.</summary>
    public const string LibvirtDomain = "libvirt.domain";

    /// <summary>Main: sockets and PID file that its QEMU makes, a line each. QEMU removes them itself unless it is killed.</summary>
    public const string QemuFiles = "qemu.files";

    /// <summary>Main: QEMU was told to run the VM.</summary>
    public const string Ran = "ran";

    /// <summary>Main and sub: there is a file of packed pages beside the RAM files or the store, without which these are not whole.</summary>
    public const string Packed = "packed";

    /// <summary>Main: pages are, or were, to be at two sub-hosts each.</summary>
    public const string TwoCopies = "two-copies";

    /// <summary>Content: the latest <see cref="WorkerDirectory.Format"/> of those that have worked on this.</summary>
    public const string Format = "format";

    public const string WorkerPid = "worker.pid";

    public const string SupervisorPid = "supervisor.pid";

    /// <summary>How often the worker was started again; written by its supervisor.</summary>
    public const string Restarts = "restarts";
}
