using System.Management.Automation;

namespace FCtrans.Lab.Cmdlets;

/// <summary>Boots a guest on a host and waits until its oracle answers.</summary>
[Cmdlet(VerbsLifecycle.Start, "LabGuest")]
[OutputType(typeof(LabGuest))]
public sealed class StartLabGuestCommand : LabCmdlet
{
    /// <summary>The host.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    [Alias("Host")]
    public LabHost LabHost { get; set; } = null!;

    /// <summary>The guest's name.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    public string Name { get; set; } = "";

    /// <summary>Its memory in bytes.</summary>
    [Parameter]
    public long Memory { get; set; } = 1L << 30;

    /// <summary>Its virtual CPUs.</summary>
    [Parameter]
    public int Smp { get; set; } = 2;

    /// <summary>QEMU's version.</summary>
    [Parameter]
    [ValidateSet("7.2", "10.0")]
    public string Qemu { get; set; } = "7.2";

    /// <summary>The guest kernel's version.</summary>
    [Parameter]
    [ValidateSet("6.1", "6.12")]
    public string Kernel { get; set; } = "6.1";

    /// <summary>Boots the bare guest under KVM instead of Linux under TCG.</summary>
    [Parameter]
    public SwitchParameter Bare { get; set; }

    /// <summary>Has the host's libvirt run it as a domain (LibvirtFixture.ps1 starts libvirt on a host).</summary>
    [Parameter]
    public SwitchParameter Libvirt { get; set; }

    /// <summary>Makes that domain a persistent one.</summary>
    [Parameter]
    public SwitchParameter Persistent { get; set; }

    /// <summary>In how many NUMA nodes, each with a RAM block of its own, the memory comes.</summary>
    [Parameter]
    public int NumaNodes { get; set; } = 1;

    /// <summary>Takes the memory from a memfd instead of a file.</summary>
    [Parameter]
    public SwitchParameter Memfd { get; set; }

    /// <summary>Gives the guest private memory, which can't be split.</summary>
    [Parameter]
    public SwitchParameter PrivateMemory { get; set; }

    /// <summary>More words for the guest kernel's command line.</summary>
    [Parameter]
    public string KernelArguments { get; set; } = "";

    /// <summary>More arguments for QEMU.</summary>
    [Parameter]
    public string[] QemuArguments { get; set; } = [];

    /// <inheritdoc/>
    protected override void Process() => WriteObject(LabHost.StartGuest(new LabGuestOptions
    {
        Name = Name,
        MemoryBytes = Memory,
        Cpus = Smp,
        Bare = Bare,
        Qemu = Qemu,
        Kernel = Kernel,
        NumaNodes = NumaNodes,
        Libvirt = Libvirt,
        Persistent = Persistent,
        Backing = PrivateMemory ? LabGuestBacking.Private : Memfd ? LabGuestBacking.Memfd : LabGuestBacking.File,
        KernelArguments = KernelArguments,
        QemuArguments = QemuArguments,
    }));
}

/// <summary>What the cmdlets share that speak to a guest.</summary>
public abstract class LabGuestCmdlet : LabCmdlet
{
    /// <summary>The guest.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    public LabGuest Guest { get; set; } = null!;
}

/// <summary>Sends the guest's oracle a command; the answer's values are the result's properties.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LabGuest")]
[OutputType(typeof(PSObject))]
public sealed class InvokeLabGuestCommand : LabGuestCmdlet
{
    /// <summary>The command; Tests/Guest/oracle.c lists them.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    public string Command { get; set; } = "";

    /// <summary>How long to wait for the answer.</summary>
    [Parameter]
    [ValidateRange(1, 3600)]
    public int TimeoutSeconds { get; set; } = 60;

    /// <inheritdoc/>
    protected override void Process() => WriteObject(ToObject(Guest.Invoke(Command, TimeSpan.FromSeconds(TimeoutSeconds))));
}

/// <summary>The oracle's counters; with -FullPass, after it has verified every page it holds once more.</summary>
[Cmdlet(VerbsCommon.Get, "LabGuestStat")]
[OutputType(typeof(PSObject))]
public sealed class GetLabGuestStatCommand : LabGuestCmdlet
{
    /// <summary>Has the oracle verify every page first.</summary>
    [Parameter]
    public SwitchParameter FullPass { get; set; }

    /// <summary>How long to wait.</summary>
    [Parameter]
    [ValidateRange(1, 3600)]
    public int TimeoutSeconds { get; set; } = 120;

    /// <inheritdoc/>
    protected override void Process()
    {
        TimeSpan timeout = TimeSpan.FromSeconds(TimeoutSeconds);
        WriteObject(ToObject(FullPass ? Guest.WaitForFullPass(timeout) : Guest.Invoke("stat", timeout)));
    }
}

/// <summary>Follows a guest's serial port to the host that it moved to.</summary>
[Cmdlet(VerbsCommon.Move, "LabGuestConsole")]
public sealed class MoveLabGuestConsoleCommand : LabGuestCmdlet
{
    /// <summary>The host that the guest runs on now.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [Alias("To")]
    public LabHost LabHost { get; set; } = null!;

    /// <inheritdoc/>
    protected override void Process() => Guest.MoveTo(LabHost);
}

/// <summary>Kills a guest on its present host.</summary>
[Cmdlet(VerbsLifecycle.Stop, "LabGuest")]
public sealed class StopLabGuestCommand : LabGuestCmdlet
{
    /// <inheritdoc/>
    protected override void Process() => Guest.Stop();
}
