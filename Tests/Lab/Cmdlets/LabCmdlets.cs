using System.Management.Automation;

namespace FCtrans.Lab.Cmdlets;

/// <summary>Makes the lab: a bridge, and the key that opens its hosts.</summary>
[Cmdlet(VerbsCommon.New, "Lab")]
[OutputType(typeof(Lab))]
public sealed class NewLabCommand : LabCmdlet
{
    /// <inheritdoc/>
    protected override void Process() => WriteObject(Current = new Lab());
}

/// <summary>Takes the lab down with all its hosts and guests; does nothing when there is none.</summary>
[Cmdlet(VerbsCommon.Remove, "Lab")]
public sealed class RemoveLabCommand : LabCmdlet
{
    /// <inheritdoc/>
    protected override void Process()
    {
        Lab? lab = Current;
        Current = null;
        lab?.Dispose();
    }
}
