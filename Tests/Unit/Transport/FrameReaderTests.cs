using System.Buffers.Binary;
using FCtrans.Agent.Transport;
using Xunit;

namespace FCtrans.Unit.Tests.Transport;

public sealed class FrameReaderTests
{
    private const long VmPages = 100_000;

    /// <summary>Frames that once were, or could be, taken for good: each must be refused on a bulk connection.</summary>
    public static TheoryData<string, byte[]> Refused()
    {
        var data = new TheoryData<string, byte[]>();
        void Add(string name, FrameHeader header, Action<byte[]>? change = null)
        {
            byte[] bytes = new byte[32];
            header.Write(bytes);
            change?.Invoke(bytes);
            data.Add(name, bytes);
        }

        var pages = new FrameHeader(FrameType.Pages, 0, 4096, 0, 5, 1);
        Add("magic", pages, b => b[0] ^= 1);
        Add("reserved", pages, b => b[7] = 1);
        Add("type 0", pages with { Type = FrameType.None });
        Add("type 16", pages with { Type = (FrameType)16 });
        Add("type 255", pages with { Type = (FrameType)255 });
        Add("no pages", pages with { PageCount = 0, PayloadBytes = 0 });
        Add("payload of another count", pages with { PageCount = 2 });
        Add("more pages than a frame takes", pages with { PageCount = 257, PayloadBytes = 257 * 4096 });
        Add("payload negative", pages with { PayloadBytes = -4096 });
        Add("payload of 2 GiB", pages with { PayloadBytes = int.MaxValue });
        Add("first negative", pages with { FirstPage = -1 });
        Add("first past the end", pages with { FirstPage = VmPages });
        Add("end past the end", pages with { FirstPage = VmPages - 1, PageCount = 2, PayloadBytes = 8192 });
        Add("sum overflows", new(FrameType.Discard, 0, 0, 0, long.MaxValue, 2));
        Add("count overflows", new(FrameType.Discard, 0, 0, 0, 1, long.MaxValue));
        Add("count negative", new(FrameType.Discard, 0, 0, 0, 1, -1));
        Add("discard with payload", new(FrameType.Discard, 0, 1, 0, 1, 1));
        Add("discard of nothing", new(FrameType.Discard, 0, 0, 0, 1, 0));
        Add("barrier with pages", new(FrameType.Barrier, 0, 0, 1, 0, 1));
        Add("a Get on a bulk connection", new(FrameType.Get, 0, 0, 1, 0, 1));
        Add("an answer from the asking side", new(FrameType.BarrierDone, 0, 0, 1, 0, 0));
        Add("a Take on a bulk connection", new(FrameType.Take, 0, 14, 1, 0, 1));
        Add("a second Hello", new(FrameType.Hello, 0, PeerHello.Size, 0, 0, 0));
        return data;
    }

    [Theory]
    [MemberData(nameof(Refused))]
    public void Refuses_frames_that_break_a_bound(string name, byte[] bytes)
    {
        Assert.False(FrameReader.TryParse(bytes, VmPages, ConnectionPurpose.Bulk, fromConnector: true, helloDone: true, out _, out string? error), name);
        Assert.False(string.IsNullOrEmpty(error));
    }

    [Fact]
    public void Only_a_hello_or_an_error_comes_first()
    {
        foreach (var type in Enum.GetValues<FrameType>())
        {
            var header = type == FrameType.Hello ? new FrameHeader(type, 0, PeerHello.Size, 0, 0, 0) : new(type, 0, 0, 0, 0, 0);
            byte[] bytes = new byte[32];
            header.Write(bytes);
            bool good = FrameReader.TryParse(bytes, VmPages, ConnectionPurpose.None, true, helloDone: false, out _, out _);
            Assert.Equal(type is FrameType.Hello or FrameType.Error, good);
        }
    }

    [Fact]
    public void A_get_may_not_ask_for_more_than_its_answer_can_carry()
    {
        Span<byte> bytes = stackalloc byte[32];
        new FrameHeader(FrameType.Get, 0, 0, 1, 0, FrameHeader.MaxGetPages).Write(bytes);
        Assert.True(FrameReader.TryParse(bytes, VmPages, ConnectionPurpose.Demand, true, true, out _, out _));
        new FrameHeader(FrameType.Get, 0, 0, 1, 0, FrameHeader.MaxGetPages + 1).Write(bytes);
        Assert.False(FrameReader.TryParse(bytes, VmPages, ConnectionPurpose.Demand, true, true, out _, out _));
        Assert.True(FrameHeader.MaxGetPages * 4097 <= FrameHeader.MaxPayloadBytes);
    }

    [Fact]
    public void What_passes_is_within_bounds_whatever_the_bytes()
    {
        var random = new Random(20210);
        byte[] bytes = new byte[32];
        int passed = 0;
        for (int i = 0; i < 400_000; i++)
        {
            // Pure noise would never get past the magic: plausible frames, half of them with a few bytes changed.
            int count = random.Next(3) == 0 ? 0 : random.Next(-2, 300);
            var header = new FrameHeader(
                (FrameType)random.Next(0, 22), random.Next(2) == 0 ? (byte)0 : (byte)random.Next(256), random.Next(2) == 0 ? 0 : count * 4096 + random.Next(0, 3),
                (uint)random.Next(), random.NextInt64(-10, VmPages + 10), count);
            header.Write(bytes);
            if (i % 2 == 0)
            {
                for (int k = random.Next(1, 4); k > 0; k--)
                {
                    bytes[random.Next(4, 32)] = (byte)random.Next(256);
                }
            }

            foreach (var purpose in Enum.GetValues<ConnectionPurpose>())
            {
                bool good = FrameReader.TryParse(bytes, VmPages, purpose, i % 3 != 0, true, out var parsed, out _);
                if (!good)
                {
                    continue;
                }

                passed++;
                Assert.InRange(parsed.PayloadBytes, 0, FrameHeader.MaxPayloadBytes);
                Assert.InRange(parsed.FirstPage, 0, VmPages);
                Assert.InRange(parsed.PageCount, 0, VmPages - parsed.FirstPage);
                Assert.True(parsed.Flags <= parsed.Type switch { FrameType.Located => 30, FrameType.Hello => 15, FrameType.DeviceState => 1, _ => 0 });
                Assert.Equal(parsed.PayloadBytes, BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(8)));
            }
        }

        Assert.True(passed > 1000, "the fuzz reaches the good path too");
    }
}
