using System.Management.Automation;

namespace FCtrans.Lab.Cmdlets;

/// <summary>Starts a host of the lab.</summary>
[Cmdlet(VerbsCommon.New, "LabHost")]
[OutputType(typeof(LabHost))]
public sealed class NewLabHostCommand : LabCmdlet
{
    /// <summary>The host's name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    public string Name { get; set; } = "";

    /// <summary>The size of the host's /dev/shm in bytes, which stands for its memory.</summary>
    [Parameter]
    public long ShmSize { get; set; } = 16L << 30;

    /// <inheritdoc/>
    protected override void Process() => WriteObject(RequireLab().AddHost(Name, ShmSize));
}

/// <summary>Ends a host at once, as a power failure would.</summary>
[Cmdlet(VerbsCommon.Remove, "LabHost")]
public sealed class RemoveLabHostCommand : LabCmdlet
{
    /// <summary>The host.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    public LabHost LabHost { get; set; } = null!;

    /// <inheritdoc/>
    protected override void Process() => LabHost.Dispose();
}

/// <summary>Runs a shell command on a host as root; its result has ExitCode, Output and Error.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "LabHost")]
[OutputType(typeof(LabCommandResult))]
public sealed class InvokeLabHostCommand : LabCmdlet
{
    /// <summary>The host.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    public LabHost LabHost { get; set; } = null!;

    /// <summary>The command, for /bin/sh.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    public string Command { get; set; } = "";

    /// <summary>How long it may take.</summary>
    [Parameter]
    [ValidateRange(1, 3600)]
    public int TimeoutSeconds { get; set; } = 60;

    /// <inheritdoc/>
    protected override void Process() => WriteObject(LabHost.Exec(Command, TimeSpan.FromSeconds(TimeoutSeconds)));
}

/// <summary>Limits, cuts or restores a host's link.</summary>
[Cmdlet(VerbsCommon.Set, "LabLink", DefaultParameterSetName = "Bandwidth")]
public sealed class SetLabLinkCommand : LabCmdlet
{
    /// <summary>The host.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true)]
    public LabHost LabHost { get; set; } = null!;

    /// <summary>Bits per second in each direction; 0 lifts the limit.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Bandwidth")]
    public long Bandwidth { get; set; }

    /// <summary>Cuts the link.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Cut")]
    public SwitchParameter Cut { get; set; }

    /// <summary>Restores a link that was cut.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Restore")]
    public SwitchParameter Restore { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        if (Cut)
        {
            LabHost.CutLink();
        }
        else if (Restore)
        {
            LabHost.RestoreLink();
        }
        else
        {
            LabHost.ShapeLink(Bandwidth == 0 ? null : Bandwidth);
        }
    }
}
