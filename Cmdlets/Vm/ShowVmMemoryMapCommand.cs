using System.Management.Automation;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>Show-VmMemoryMap: the whole memory of a VM as a picture in the terminal.</summary>
[Cmdlet(VerbsCommon.Show, "VmMemoryMap")]
[OutputType(typeof(string))]
public sealed class ShowVmMemoryMapCommand : VmCmdlet
{
    private const int UsualWidth = 80;
    private const int UsualHeight = 24;

    /// <summary>Characters in a line, 40 to 1000. Default: as wide as the window.</summary>
    [Parameter]
    [ValidateRange(40, 1000)]
    public int Width { get; set; }

    /// <summary>Lines of the picture with its legend, 10 to 1000. Default: as high as the window.</summary>
    [Parameter]
    [ValidateRange(10, 1000)]
    public int Height { get; set; }

    /// <summary>Letters only. Default where the output goes elsewhere than to a terminal, or colours are off ($PSStyle.OutputRendering, NO_COLOR).</summary>
    [Parameter]
    public SwitchParameter NoColor { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForVms(Show);

    private void Show(KvmVm vm)
    {
        (int width, int height) = Window();
        var picture = new MemoryMapPicture(Width > 0 ? Width : width, Height > 0 ? Height : height, colour: !NoColor && HasColours());
        (MemoryMapHead head, List<VmMemoryRange> cells) = Await(stop =>
            VmMemoryMapReader.ReadAsync(vm, picture.BytesInCell(vm.MemoryBytes), merge: false, stop));
        WriteObject(picture.Draw(vm, head, cells), enumerateCollection: true);
    }

    /// <summary>The terminal's, less the line of the prompt that follows; a usual one's where there is none.</summary>
    private (int Width, int Height) Window() => TerminalWindow.SizeOf(Host) is ( >= 40 and var width, >= 10 and var height)
        ? (width, height - 1)
        : (UsualWidth, UsualHeight);

    private bool HasColours() => !Console.IsOutputRedirected && MyInvocation.PipelinePosition == MyInvocation.PipelineLength
        && Host.UI is { SupportsVirtualTerminal: true }
        // $PSStyle is newer than the assembly that modules are compiled against.
        && $"{(GetVariableValue("PSStyle") is { } style ? PSObject.AsPSObject(style).Properties["OutputRendering"]?.Value : null)}" != "PlainText"
        && string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR"));
}
