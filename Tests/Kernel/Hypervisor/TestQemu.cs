using System.Diagnostics;
using FCtrans.Agent.Hypervisor;

namespace FCtrans.Kernel.Tests.Hypervisor;

/// <summary>A real QEMU whose CPUs never start, for tests that need its process and monitor but no guest. Ends with the object.</summary>
internal sealed class TestQemu : IDisposable
{
    private const string Installed = "qemu-system-x86_64";

    private readonly Process _process;
    private readonly string _directory;

    /// <param name="arguments"><c>{dir}</c> stands for a directory of its own, <c>{shm}</c> for the beginning of paths in a tmpfs.</param>
    public TestQemu(params string[] arguments)
        : this(Installed, arguments)
    {
    }

    /// <param name="qemu">Which one: <see cref="Program"/>.</param>
    /// <param name="arguments">As above.</param>
    public TestQemu(string qemu, string[] arguments)
    {
        string id = Guid.NewGuid().ToString("N")[..12];
        _directory = Directory.CreateTempSubdirectory("fctrans-qemu-").FullName;
        ShmPrefix = $"/dev/shm/fctrans-test-{id}-";
        Name = "test-" + id;
        MonitorPath = Path.Combine(_directory, "qmp,sock");
        var start = new ProcessStartInfo(qemu) { RedirectStandardError = true };
        string[] all =
        [
            "-name", $"guest={Name},debug-threads=on", "-accel", "tcg", "-display", "none", "-nodefaults", "-S",
            "-qmp", $"unix:{MonitorPath.Replace(",", ",,")},server=on,wait=off", .. arguments,
        ];
        if (qemu != Installed)
        {
            string share = Path.Combine(Path.GetDirectoryName(qemu)!, "..", "share");
            all = ["-L", Path.Combine(share, "qemu"), "-L", Path.Combine(share, "seabios"), .. all];
        }

        foreach (string argument in all)
        {
            start.ArgumentList.Add(argument.Replace("{dir}", _directory).Replace("{shm}", ShmPrefix));
        }

        _process = Process.Start(start)!;
    }

    /// <summary>The machine's own QEMU, and the newer one that the lab has beside it.</summary>
    public static string Program(string version)
    {
        if (version == "installed")
        {
            return Installed;
        }

        for (string? at = AppContext.BaseDirectory; at is not null; at = Path.GetDirectoryName(at))
        {
            string root = Path.Combine(at, "artifacts", "cache", "lab", "qemu-" + version, "usr");
            if (Directory.Exists(root))
            {
                return Path.Combine(root, "bin", Installed);
            }
        }

        throw new InvalidOperationException($"QEMU {version} is missing: run 'Tests/Lab/prepare qemu-{version}'.");
    }

    public string Name { get; }

    public string MonitorPath { get; }

    public string ShmPrefix { get; }

    public string DirectoryPath => _directory;

    public int Pid => _process.Id;

    public QemuMonitor Connect()
    {
        try
        {
            return QemuMonitor.Connect(MonitorPath, TimeSpan.FromSeconds(20));
        }
        catch (MonitorException) when (_process.HasExited)
        {
            throw new InvalidOperationException("QEMU ended: " + _process.StandardError.ReadToEnd());
        }
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        Directory.Delete(_directory, recursive: true);
        foreach (string file in Directory.GetFiles("/dev/shm", Path.GetFileName(ShmPrefix) + "*"))
        {
            File.Delete(file);
        }
    }
}
