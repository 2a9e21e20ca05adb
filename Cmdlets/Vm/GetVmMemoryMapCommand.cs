using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>Get-VmMemoryMap: what each part of a VM's memory is, and where it lies, as objects.</summary>
[Cmdlet(VerbsCommon.Get, "VmMemoryMap")]
[OutputType(typeof(VmMemoryRange))]
public sealed class GetVmMemoryMapCommand : VmCmdlet
{
    private const long PageBytes = 4096;

    /// <summary>
    /// How finely parts are told apart: 4KB to 1TB, in steps of 4KB. At 4KB each part is one thing only; above, what most of its
    /// pages are, with the figures of all. Default: 2MB.
    /// </summary>
    [Parameter]
    [ValidateRange(PageBytes, 1L << 40)]
    [ByteCount]
    public long Granularity { get; set; } = 2 << 20;

    /// <summary>Gives each part of the granularity's length as an object of its own. Without it neighbours of the same kind and place come as one.</summary>
    [Parameter]
    public SwitchParameter Unmerged { get; set; }

    /// <inheritdoc/>
    protected override void BeginProcessing()
    {
        if (Granularity % PageBytes != 0)
        {
            ThrowTerminatingError(new ErrorRecord(
                new ArgumentException("The granularity is a multiple of 4KB, such as 4KB, 2MB or 1GB."), "GranularityInvalid", ErrorCategory.InvalidArgument, Granularity));
        }
    }

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForVms(vm => WriteObject(
        Await(stop => VmMemoryMapReader.ReadAsync(vm, (ulong)Granularity, !Unmerged, stop)).Ranges, enumerateCollection: true));
}
