using System.Management.Automation.Host;

namespace FCtrans.Commands;

/// <summary>The window that a host of PowerShell's writes to, if it has one.</summary>
internal static class TerminalWindow
{
    /// <summary>Its characters in a line, and its lines; null where there is none.</summary>
    public static (int Width, int Height)? SizeOf(PSHost host)
    {
        if (Console.IsOutputRedirected)
        {
            return null;
        }

        try
        {
            Size size = host.UI.RawUI.WindowSize;
            return size.Width > 0 && size.Height > 0 ? (size.Width, size.Height) : null;
        }
        catch (Exception e) when (e is HostException or NotImplementedException or NotSupportedException or InvalidOperationException or NullReferenceException)
        {
            // A host without a screen.
            return null;
        }
    }
}
