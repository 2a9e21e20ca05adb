using System.Diagnostics;
using FCtrans.Agent.Hypervisor;

namespace FCtrans.Kernel.Tests.Hypervisor;

/// <summary>A real QEMU whose CPUs never start, for tests that need its process and monitor but no guest. Ends with the object.</summary>
internal sealed class TestQemu : IDisposable
{
    private readonly Process _process;
    private readonly string _directory;

    /// <param name="arguments"><c>{dir}</c> stands for a directory of its own, <c>{shm}</c> for the beginning of paths in a tmpfs.</param>
    public TestQemu(params string[] arguments)
    {
        string id = Guid.NewGuid().ToString("N")[..12];
        _directory = Directory.CreateTempSubdirectory("fctrans-qemu-").FullName;
        ShmPrefix = $"/dev/shm/fctrans-test-{id}-";
        Name = "test-" + id;
        MonitorPath = Path.Combine(_directory, "qmp,sock");
        var start = new ProcessStartInfo("qemu-system-x86_64") { RedirectStandardError = true };
        string[] all =
        [
            "-name", $"guest={Name},debug-threads=on", "-accel", "tcg", "-display", "none", "-nodefaults", "-S",
            "-qmp", $"unix:{MonitorPath.Replace(",", ",,")},server=on,wait=off", .. arguments,
        ];
        foreach (string argument in all)
        {
            start.ArgumentList.Add(argument.Replace("{dir}", _directory).Replace("{shm}", ShmPrefix));
        }

        _process = Process.Start(start)!;
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
