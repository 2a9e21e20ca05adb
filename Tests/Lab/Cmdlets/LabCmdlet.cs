using System.Management.Automation;

namespace FCtrans.Lab.Cmdlets;

/// <summary>What the lab's cmdlets share: the one lab of this process, and errors that end the command.</summary>
public abstract class LabCmdlet : PSCmdlet
{
    /// <summary>The lab that New-Lab made, or null.</summary>
    protected static Lab? Current { get; set; }

    /// <summary>The lab that New-Lab made; throws when there is none.</summary>
    protected static Lab RequireLab() => Current ?? throw new LabException("There is no lab; New-Lab makes one.");

    /// <summary>Does the work for one input.</summary>
    protected abstract void Process();

    /// <inheritdoc/>
    protected sealed override void ProcessRecord()
    {
        try
        {
            Process();
        }
        catch (Exception e) when (e is not PipelineStoppedException)
        {
            ThrowTerminatingError(new ErrorRecord(e, "LabFailed", ErrorCategory.InvalidOperation, null));
        }
    }

    /// <summary>An object with the answer's values as properties; whole numbers as such.</summary>
    protected static PSObject ToObject(OracleAnswer answer)
    {
        var result = new PSObject();
        foreach ((string key, string value) in answer.Values)
        {
            result.Properties.Add(new PSNoteProperty(key, long.TryParse(value, out long number) ? number : value));
        }

        return result;
    }
}
