using System.Globalization;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;

namespace FCtrans.Bench;

/// <summary>What the guest measured while it touched pages: the time of all, and of single touches.</summary>
internal readonly record struct Touched(double Seconds, double P50, double P90, double P99, double P999, double Max)
{
    public double PagesPerSecond(long pages) => pages / Seconds;
}

/// <summary>A process of bench/paging/guest.c with memory of its own, all of it missing.</summary>
internal sealed class PagingGuest : IDisposable
{
    private readonly TalkingProgram _program;
    private readonly string _ramPath;

    /// <param name="userfaultfds">So many of them are to serve its memory.</param>
    public PagingGuest(string program, string directory, long pages, int userfaultfds = 1)
    {
        Pages = pages;
        _ramPath = Path.Combine(directory, "ram-" + Guid.NewGuid().ToString("N"));
        using (var file = File.OpenHandle(_ramPath, FileMode.CreateNew, FileAccess.ReadWrite))
        {
            SparseFile.SetLength(file, pages * PageIndex.PageSize);
        }

        _program = new(program, _ramPath, pages, userfaultfds);
        string[] ready = _program.Expect("ready");
        Address = new(ulong.Parse(ready[0], CultureInfo.InvariantCulture));
        Userfaultfds = Array.ConvertAll(ready[1..], static s => int.Parse(s, CultureInfo.InvariantCulture));
    }

    public long Pages { get; }

    public int ProcessId => _program.ProcessId;

    /// <summary>The numbers of its userfaultfds in it.</summary>
    public int[] Userfaultfds { get; }

    public HostAddress Address { get; }

    public string RamPath => _ramPath;

    public Touched Touch(int threads, string order, string content, long first, long count)
    {
        _program.Say(FormattableString.Invariant($"touch {threads} {order} {content} {first} {count}"));
        return ReadTouched();
    }

    /// <summary>Remote pages touched in no order while another thread walks through others; what is told is about the former.</summary>
    public Touched TouchBesideWalk()
    {
        _program.Say("beside");
        return ReadTouched();
    }

    public void Dispose()
    {
        _program.Dispose();
        File.Delete(_ramPath);
    }

    private Touched ReadTouched()
    {
        double[] n = Array.ConvertAll(_program.Expect("touched"), static s => double.Parse(s, CultureInfo.InvariantCulture));
        return n[6] == 0
            ? new(n[0] / 1e9, n[1] / 1e3, n[2] / 1e3, n[3] / 1e3, n[4] / 1e3, n[5] / 1e3)
            : throw new InvalidDataException($"The guest found {n[6]} pages with a wrong content.");
    }
}
