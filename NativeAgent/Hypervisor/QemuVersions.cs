using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.RegularExpressions;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// Which version a QEMU program is. Asked of the program itself, once for each file: the monitor would say it too, but serves
/// one client only, and a migration may be using it.
/// </summary>
internal static partial class QemuVersions
{
    private static readonly ConcurrentDictionary<(ulong Device, ulong Inode, long Bytes), string> s_known = new();

    /// <summary>Of a running process; empty when it can't be told.</summary>
    public static string Of(int processId) => OfFile($"/proc/{processId}/exe");

    /// <summary>Of a program; empty when it can't be told.</summary>
    public static string OfFile(string path)
    {
        try
        {
            using var file = SparseFile.Open(path, write: false);
            var status = SparseFile.Status(file);

            // Anybody may call his program qemu-system-…; we run only what the administrator installed.
            const uint WritableByOthers = 0x12;
            if (status.OwnerId != 0 || (status.Mode & WritableByOthers) != 0)
            {
                return "";
            }

            return s_known.GetOrAdd((status.Device, status.Inode, status.Bytes), static (_, name) => Ask(name), path);
        }
        catch (KernelException)
        {
            return "";
        }
    }

    private static string Ask(string path)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(path, ["--version"])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                RedirectStandardInput = true,
            })!;
            process.StandardInput.Close();
            process.ErrorDataReceived += static (_, _) => { };
            process.BeginErrorReadLine();
            var output = process.StandardOutput.ReadLineAsync();
            if (!output.Wait(TimeSpan.FromSeconds(5)))
            {
                process.Kill();
                return "";
            }

            process.WaitForExit(5000);
            return Version().Match(output.Result ?? "").Groups[1].Value;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException or IOException or AggregateException)
        {
            return "";
        }
    }

    [GeneratedRegex(@"QEMU emulator version ([0-9]+\.[0-9]+\.[0-9]+)", RegexOptions.CultureInvariant)]
    private static partial Regex Version();
}
